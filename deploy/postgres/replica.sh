#!/bin/sh
# A replica of `primary`: its first start copies it, through a slot, so that no log is missing.
set -eu

data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
    rm -rf "${data:?}"/*
    until pg_basebackup -h primary -U mailyard -D "$data" -R -X stream -C -S mailyard_replica; do
        sleep 2
        rm -rf "${data:?}"/*
    done
    chmod 0700 "$data"
fi
exec postgres -D "$data" -c hot_standby=on -c hot_standby_feedback=on
