#!/bin/sh
# Installs the emulators of two object stores for the tests of the fleet: Azurite (Azure, from npm by
# its lock file) and fake-gcs-server (Google, from the Go module proxy), into folders that all working
# copies share. Does nothing when they are there. Two minutes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${MAILYARD_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailyard-fleet}
azurite=$cache/azurite-3.35.0
gcs=$cache/fake-gcs-server-v1.56.1
go=$(command -v go || echo /usr/local/go/bin/go)

missing=""
command -v npm >/dev/null || missing="$missing npm"
[ -x "$go" ] || missing="$missing golang-go"
if [ -n "$missing" ] && ! { [ -e "$azurite/complete" ] && [ -x "$gcs/fake-gcs-server" ]; }; then
    if [ "$(id -u)" != 0 ]; then
        echo "these Debian packages are missing; install them as root: apt-get install$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 (a list of words)
    apt-get install -y -q --no-install-recommends $missing
    go=$(command -v go)
fi
if [ ! -e "$azurite/complete" ]; then
    rm -rf "$azurite"
    mkdir -p "$azurite"
    cp "$here/azurite/package.json" "$here/azurite/package-lock.json" "$azurite"
    (cd "$azurite" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch "$azurite/complete"
fi
if [ ! -x "$gcs/fake-gcs-server" ]; then
    mkdir -p "$gcs"
    GOBIN="$gcs" CGO_ENABLED=0 "$go" install -trimpath -ldflags "-s -w" \
        "github.com/fsouza/fake-gcs-server@v1.56.1"
fi
