#!/bin/sh
# Installs Apache Kafka for the tests of the fleet: its jars from Maven Central, into a folder that all
# working copies share. Does nothing when they are there.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
into=${MAILYARD_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailyard-fleet}/kafka-4.4.0
[ ! -e "$into/complete" ] || exit 0

missing=""
command -v java >/dev/null || missing="$missing openjdk-17-jre-headless"
command -v mvn >/dev/null || missing="$missing maven"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "these Debian packages are missing; install them as root: apt-get install$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 (a list of words)
    apt-get install -y -q --no-install-recommends $missing
fi

rm -rf "$into"
mkdir -p "$into"
jars() { # POM FOLDER
    mvn -B -q -f "$here/kafka/$1" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DoutputDirectory="$into/$2" -DincludeScope=runtime
}
jars pom.xml libs
jars tools.xml tools
touch "$into/complete"
