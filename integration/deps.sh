#!/bin/sh
# Installs the Debian packages that are missing: as root with apt, else prints the one line to run.
# Fails only if the build itself lacks something; suites whose component is missing are left out by name.
set -eu

build="gcc g++ libc6-dev make pkg-config libssl-dev"
tests="curl git openssl conmon openjdk-17-jdk-headless maven chromium chromium-driver iproute2 prometheus docker-compose"

# Go, for kube-apiserver, etcd, the kubelet's own rotation code and Helm: Debian's if it is new enough.
if ! (go env GOVERSION || /usr/local/go/bin/go env GOVERSION) 2>/dev/null | grep -Eq '^go1\.(2[4-9]|[3-9][0-9])'; then
    if apt-cache policy golang-go 2>/dev/null | grep -Eq 'Candidate: 2:1\.(2[4-9]|[3-9][0-9])'; then
        tests="$tests golang-go"
    else
        echo "Go 1.24 or newer is not here and not in Debian's packages: kube-apiserver, the kubelet's rotation and Helm are left out of the tests" >&2
    fi
fi

missing() {
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s ' "$package"
    done
}

# Another JDK of at least 17 will do.
if java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])'; then
    tests=$(printf '%s' "$tests" | sed 's/openjdk-17-jdk-headless //')
fi

# shellcheck disable=SC2086
needed=$(missing $build)
# shellcheck disable=SC2086
wanted=$(missing $tests)
[ -n "$needed$wanted" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $needed $wanted
    # Tests start a Prometheus of their own; the package's shall not run by itself.
    case " $wanted" in *" prometheus "*) systemctl disable --now prometheus >/dev/null 2>&1 || true ;; esac
    exit 0
fi

echo "missing: $needed$wanted" >&2
echo "run:     sudo apt-get update && sudo apt-get install -y --no-install-recommends $needed$wanted" >&2
[ -z "$needed" ]
