#!/bin/sh
# Check and test the JavaScript client: types, style, tests with a simulated server, then with real gateways.
# Without Node.js it reports that nothing was tested; REQUIRE_ALL=1 makes that a failure.
set -eu
cd "$(dirname "$0")/.."

# Report a missing program and the skipped tests, and exit.
without() {
    if [ "${REQUIRE_ALL:-}" = 1 ]; then
        echo "clients/js: REQUIRE_ALL=1, and there is no $1" >&2
        exit 1
    fi
    echo "clients/js: $2 skipped, there is no $1"
    exit 0
}

sh scripts/node.sh node --version >/dev/null 2>&1 || without "Node.js >= 20" "all tests"

npm() {
    sh scripts/node.sh npm --prefix clients/js --silent "$@"
}

sh scripts/npm-ci.sh clients/js
TIDINGS_PYTHON="$PWD/.venv/bin/python"
export TIDINGS_PYTHON
npm run check
npm test
"$TIDINGS_PYTHON" -c 'from tidings_cli.local.binaries import nats_binary, redis_binary; nats_binary(), redis_binary()' \
    2>/dev/null || without "nats-server or redis-server" "tests with real gateways"
npm run test:real
