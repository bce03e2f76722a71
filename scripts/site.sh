#!/bin/sh
# Run MkDocs with what it needs: `scripts/site.sh build`, `scripts/site.sh serve`.
# Ends with 69 (EX_UNAVAILABLE) where there is no Node.js to fetch what pages load.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/python -c 'import material' 2>/dev/null ||
    .tools/uv/bin/uv sync --quiet --frozen --inexact --extra local --group docs

# Again only when the lock changed.
if [ ! scripts/site/node_modules/.package-lock.json -nt scripts/site/package-lock.json ]; then
    sh scripts/node.sh npm --prefix scripts/site --silent ci --ignore-scripts --no-audit --no-fund
    touch scripts/site/node_modules/.package-lock.json
fi

command=$1
shift
# The theme's authors advertise their next project on each build.
NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true exec .venv/bin/mkdocs "$command" "$@"
