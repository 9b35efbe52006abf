#!/bin/sh
# A replica of the server PRIMARY: its first start copies it, through the slot SLOT, so that no log is
# missing.
set -eu

primary=${PRIMARY:-primary}
slot=${SLOT:-mailyard_replica}
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
    rm -rf "${data:?}"/*
    until pg_basebackup -h "$primary" -U mailyard -D "$data" -R -X stream -C -S "$slot"; do
        sleep 2
        rm -rf "${data:?}"/*
    done
    chmod 0700 "$data"
fi
exec postgres -D "$data" -c hot_standby=on -c hot_standby_feedback=on
