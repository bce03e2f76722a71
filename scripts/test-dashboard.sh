#!/bin/sh
# Check, test and build the dashboard: types, style, its pure parts. tests/browser tests it in a browser.
# Without Node.js it reports that nothing was tested; REQUIRE_ALL=1 makes that a failure.
set -eu
cd "$(dirname "$0")/.."

if ! sh scripts/node.sh node --version >/dev/null 2>&1; then
    [ "${REQUIRE_ALL:-}" != 1 ] || { echo "dashboard: REQUIRE_ALL=1, and there is no Node.js >= 20" >&2; exit 1; }
    echo "dashboard: all checks skipped, there is no Node.js >= 20"
    exit 0
fi

npm() {
    sh scripts/node.sh npm --prefix dashboard --silent "$@"
}

# Checks and tests need more packages than a build.
[ -e dashboard/node_modules/.bin/vitest ] || rm -f dashboard/node_modules/.package-lock.json
sh scripts/npm-ci.sh dashboard
npm run check
npm test
sh scripts/dashboard.sh
