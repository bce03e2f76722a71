#!/bin/sh
# Make .venv from uv.lock. Needs only Python >= 3.11. Called by the Makefile.
# PYTHON names the interpreter, UV_PROJECT_ENVIRONMENT another folder than .venv.
set -eu

UV_VERSION=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' scripts/uv.txt)
TOOLS=.tools/uv

usable() {
    # Without ensurepip (Debian keeps it in python3-venv) a virtual environment has no pip.
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if command -v "$name" >/dev/null 2>&1 && usable "$name"; then
            # The interpreter behind a version manager's shim, which may choose another one in another folder.
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    cat >&2 <<'EOF'
No usable Python was found: Tidings needs Python 3.11 or newer with the venv module.
  Debian, Ubuntu:  apt-get install python3 python3-venv
  Fedora:          dnf install python3
  macOS:           brew install python@3.13
Or name one: make run PYTHON=/path/to/python3
EOF
    exit 1
}

python=$(find_python)

if ! "$TOOLS/bin/uv" --version 2>/dev/null | grep -qF "uv $UV_VERSION"; then
    echo "Installing uv $UV_VERSION into $TOOLS"
    rm -rf "$TOOLS"
    "$python" -m venv "$TOOLS"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/uv.txt
fi

# Node.js builds and tests the code for browsers. Its wheel has 60 MB, so it is only installed where the machine has none.
node_group=""
sh scripts/node.sh --have || node_group="--group node"

# Fuzzers, the site's generator, schemas of Kubernetes and browser drivers are large, and only needed for all tests.
every_test=""
[ -z "${REQUIRE_ALL:-}" ] || every_test="--group fuzz --group docs --group deploy --group browser"

# The machine's certificate authorities instead of uv's own: they include those of a company's proxy.
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"

echo "Making ${UV_PROJECT_ENVIRONMENT:-.venv} from uv.lock with $python"
# Inexact: packages of another run (fuzzers, benchmarks) may stay.
# shellcheck disable=SC2086  # several words, or none
UV_PYTHON_DOWNLOADS=never "$TOOLS/bin/uv" sync --quiet --frozen --inexact --extra local $node_group $every_test \
    --python "$python"
