#!/bin/sh
# Install a folder's npm packages from its lock, if the lock has changed since the last installation.
# Usage: scripts/npm-ci.sh FOLDER [OPTION OF npm ci…]
set -eu
folder=$1
shift
stamp=$folder/node_modules/.package-lock.json
[ ! "$stamp" -nt "$folder/package-lock.json" ] || exit 0
sh "$(dirname "$0")/node.sh" npm --prefix "$folder" --loglevel error ci --ignore-scripts --no-audit --no-fund "$@"
touch "$stamp"
