#!/bin/sh
# nginx and HAProxy, Debian's. Neither is started; does nothing when both are there.
set -eu

[ -x /usr/sbin/nginx ] && [ -x /usr/sbin/haproxy ] &&
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "install them as root: apt-get install nginx libnginx-mod-stream haproxy" >&2
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
apt-get install -y -q --no-install-recommends nginx libnginx-mod-stream haproxy
