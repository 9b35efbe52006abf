#!/bin/sh
# Installs the services of a fleet that tests and benches run against, each by its own script. Does
# nothing when all are there.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
for script in "$here"/install_*.sh; do
    [ "$script" = "$here/install_fleet.sh" ] || "$script"
done
