#!/bin/sh
# Prometheus with promtool, and InfluxDB, Debian's. Neither is started; does nothing when both are there.
set -eu

[ -x /usr/bin/prometheus ] && [ -x /usr/bin/promtool ] && [ -x /usr/bin/influxd ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "install them as root: apt-get install prometheus influxdb" >&2
    exit 1
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends prometheus influxdb
