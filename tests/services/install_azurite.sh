#!/bin/sh
# Installs Azurite, Azure's own emulator of its blob storage, for the tests of the fleet: from npm by
# the lock file, into a folder that all working copies share. Does nothing when it is there. A minute.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
into=${MAILYARD_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailyard-fleet}/azurite-3.35.0
[ ! -e "$into/complete" ] || exit 0

if ! command -v npm >/dev/null; then
    if [ "$(id -u)" != 0 ]; then
        echo "npm is missing; install it as root: apt-get install npm" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -y -q --no-install-recommends npm
fi
rm -rf "$into"
mkdir -p "$into"
cp "$here/azurite/package.json" "$here/azurite/package-lock.json" "$into"
(cd "$into" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
touch "$into/complete"
