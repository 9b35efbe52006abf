#!/bin/sh
# Builds versitygw, an S3 server over a folder, for the tests of the fleet: from the Go module proxy,
# into a folder that all working copies share. Does nothing when it is there. A minute.
set -eu

version=v1.8.0
into=${MAILYARD_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailyard-fleet}/versitygw-$version
[ ! -x "$into/versitygw" ] || exit 0

go=$(command -v go || echo /usr/local/go/bin/go)
if [ ! -x "$go" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "Go is missing; install it as root: apt-get install golang-go" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -y -q --no-install-recommends golang-go
    go=$(command -v go)
fi
mkdir -p "$into"
GOBIN="$into" CGO_ENABLED=0 "$go" install -trimpath -ldflags "-s -w" \
    "github.com/versity/versitygw/cmd/versitygw@$version"
