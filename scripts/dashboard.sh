#!/bin/sh
# Build the dashboard into gateway/dashboard/dist, when anything it is made of has changed since the last time.
# With --try a build that is not possible here is told, and no failure: the gateway then says so on its page.
set -eu
cd "$(dirname "$0")/.."
built=gateway/dashboard/dist
stamp=$built/.built-from

# Names and contents of all that goes in; a checksum notices what a date does not: files that are gone.
made_from() {
    find dashboard/src dashboard/public dashboard/index.html dashboard/vite.config.ts dashboard/package-lock.json \
        clients/js/src -type f -exec cksum {} + | sort | cksum
}

cannot() {
    echo "The dashboard is not built: $1" >&2
    [ "${try:-}" = yes ] && exit 0
    exit 1
}

npm() {
    sh scripts/node.sh npm --prefix dashboard --loglevel error "$@"
}

[ "${1:-}" != --try ] || try=yes
wanted=$(made_from)
[ "$(cat $stamp 2>/dev/null)" != "$wanted" ] || exit 0
sh scripts/node.sh node --version >/dev/null 2>&1 || cannot "there is no Node.js >= 20"

# Checks and tests need more than a build; where that is there it stays.
packages=dashboard/node_modules/.package-lock.json
if [ ! $packages -nt dashboard/package-lock.json ]; then
    echo "Fetching what the dashboard is built with"
    omit=--omit=dev
    [ ! -e dashboard/node_modules/.bin/vitest ] || omit=--include=dev
    npm ci --ignore-scripts $omit || cannot "its packages could not be fetched"
    touch $packages
fi
echo "Building the dashboard"
npm run --silent build || cannot "see above"
printf '%s\n' "$wanted" >$stamp
