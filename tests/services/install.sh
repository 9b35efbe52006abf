#!/bin/sh
# Installs what tests and benches need beside Python packages: peers to measure against and to talk
# to, a browser, FUSE. Debian packages; none of their daemons is started. Does nothing when all are
# there; says what to do when it may not install.
set -eu

# The mock server of the mail providers' documents, by its lock file. Its tests are skipped without.
prism=$(dirname "$0")/prism
if [ ! -e "$prism/node_modules/.bin/prism" ]; then
    (cd "$prism" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) ||
        echo "prism was not installed (npm and the network are needed)" >&2
fi

# package and a file that it brings
WANTED="
postfix:/usr/sbin/smtp-source
redis-server:/usr/bin/redis-server
dovecot-core:/usr/sbin/dovecot
swaks:/usr/bin/swaks
libnet-ssleay-perl:/usr/share/doc/libnet-ssleay-perl
wrk:/usr/bin/wrk
chromium:/usr/bin/chromium
fonts-dejavu-core:/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
fuse3:/usr/bin/fusermount3
libfuse2:/lib/x86_64-linux-gnu/libfuse.so.2
opendkim-tools:/usr/sbin/opendkim-testmsg
postgresql-15:/usr/lib/postgresql/15/bin/postgres
pgbouncer:/usr/sbin/pgbouncer
unbound:/usr/sbin/unbound
openssl:/usr/bin/openssl
rspamd:/usr/bin/rspamd
"

missing=""
for line in $WANTED; do
    package=${line%%:*}
    file=${line#*:}
    [ -e "$file" ] || [ -e "/usr$file" ] || dpkg-query -W -f='${Status}' "$package" 2>/dev/null |
        grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "these Debian packages are missing; install them as root: apt-get install$missing" >&2
    exit 1
fi

# No daemon starts, no cluster is made, nothing asks.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 (a list of words)
apt-get install -y -q --no-install-recommends $missing
