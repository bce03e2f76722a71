#!/bin/sh
# Run MkDocs with its assets: `scripts/site.sh build`, `scripts/site.sh serve`.
# Exits with 69 (EX_UNAVAILABLE) without Node.js, which fetches the assets.
set -eu
cd "$(dirname "$0")/.."

.venv/bin/python -c 'import material' 2>/dev/null ||
    .tools/uv/bin/uv sync --quiet --frozen --inexact --extra local --group docs

sh scripts/npm-ci.sh scripts/site

command=$1
shift
# The theme's authors advertise their next project on each build.
NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true exec .venv/bin/mkdocs "$command" "$@"
