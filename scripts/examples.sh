#!/bin/sh
# Serve the JavaScript client's examples, beside a running server. Options go to clients/js/examples/serve.mjs.
set -eu
cd "$(dirname "$0")/.."

sh scripts/node.sh node --version >/dev/null 2>&1 || {
    echo "the examples need Node.js >= 20" >&2
    exit 1
}

sh scripts/npm-ci.sh clients/js
exec sh scripts/node.sh node clients/js/examples/serve.mjs "$@"
