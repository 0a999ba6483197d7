#!/bin/sh
# The Debian packages that tests, benchmarks and the lab drive: install what is missing, or say what to install.
set -eu
missing=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need nginx nginx-light
need curl curl
need ip iproute2
need ethtool ethtool
need tshark tshark
need qemu-system-x86_64 qemu-system-x86
[ -e /usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so ] || missing="$missing libnginx-mod-http-headers-more-filter"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing Debian packages:$missing" >&2
    echo "install them (apt-get install$missing), then run this again" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# A package's service must not start here: the tests start their own servers.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq install --yes --no-install-recommends $missing >/dev/null
