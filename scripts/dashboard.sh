#!/bin/sh
# Build the dashboard into gateway/dashboard/dist, if one of its sources changed since the last build.
# With --try a build that is not possible here is reported but not a failure; the gateway's page then explains it.
set -eu
cd "$(dirname "$0")/.."
built=gateway/dashboard/dist
stamp=$built/.built-from

# A checksum over names and contents of all sources. Unlike dates, it also changes when a file is deleted.
made_from() {
    find dashboard/src dashboard/public dashboard/index.html dashboard/vite.config.ts dashboard/package-lock.json \
        clients/js/src -type f -exec cksum {} + | sort | cksum
}

cannot() {
    echo "The dashboard is not built: $1" >&2
    [ "${try:-}" = yes ] && exit 0
    exit 1
}

[ "${1:-}" != --try ] || try=yes
wanted=$(made_from)
[ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || exit 0
sh scripts/node.sh node --version >/dev/null 2>&1 || cannot "there is no Node.js >= 20"

# Checks and tests need more packages than a build; installed ones are kept.
omit=--omit=dev
[ ! -e dashboard/node_modules/.bin/vitest ] || omit=--include=dev
sh scripts/npm-ci.sh dashboard $omit || cannot "its packages could not be installed"
echo "Building the dashboard"
sh scripts/node.sh npm --prefix dashboard --loglevel error run --silent build || cannot "see above"
printf '%s\n' "$wanted" >$stamp
