#!/bin/sh
# Serve the JavaScript client's examples, beside a running server. Options go to clients/js/examples/serve.mjs.
set -eu
cd "$(dirname "$0")/.."

sh scripts/node.sh node --version >/dev/null 2>&1 || {
    echo "the examples need Node.js >= 20" >&2
    exit 1
}

# Again only when the lock changed.
if [ ! clients/js/node_modules/.package-lock.json -nt clients/js/package-lock.json ]; then
    sh scripts/node.sh npm --prefix clients/js --silent ci --ignore-scripts --no-audit --no-fund
    touch clients/js/node_modules/.package-lock.json
fi
exec sh scripts/node.sh node clients/js/examples/serve.mjs "$@"
