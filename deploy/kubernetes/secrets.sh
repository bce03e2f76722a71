#!/bin/sh
# Print the Secrets that the manifests refer to, with random values:
#
#   sh deploy/kubernetes/secrets.sh | kubectl apply -f -
#
# Each run prints others, so apply them once. Options:
#
#   --keep FILE   make them once, keep them in FILE (for its owner alone), and print what is in there
#   --tls         also an authority of your own, and certificates for NATS and Redis (needs openssl)
set -eu

keep="" tls=""
while [ $# -gt 0 ]; do
    case $1 in
        --keep) [ $# -gt 1 ] || { echo "secrets.sh: --keep needs a file" >&2; exit 2; }; keep=$2; shift ;;
        --tls) tls=yes ;;
        *) echo "secrets.sh: unknown option $1; there are --keep FILE and --tls" >&2; exit 2 ;;
    esac
    shift
done

if [ -n "$keep" ] && [ -s "$keep" ]; then
    cat "$keep"
    exit
fi

# Letters and digits, and a letter first: these go into URLs, and into configuration that would take digits for a number.
password() {
    printf 't%s' "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
}

# secret NAMESPACE NAME TYPE KEY=VALUE...
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: %s }\ntype: %s\nstringData:\n' "$2" "$1" "$3"
    shift 3
    for pair in "$@"; do
        printf '  %s: |-\n' "${pair%%=*}"
        printf '%s\n' "${pair#*=}" | sed 's/^/    /'
    done
}

# certificate NAME SERVICE: a key and a certificate for a Service and its pods, signed by the authority
certificate() {
    names="DNS:localhost,DNS:$2,DNS:$2.tidings,DNS:$2.tidings.svc"
    # No wildcard: OpenSSL takes none before a name without dots.
    for pod in 0 1 2; do
        names="$names,DNS:$2-$pod.$2-headless,DNS:$2-$pod.$2-headless.tidings.svc"
    done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/$1.key" -out "$work/$1.csr" \
        -subj "/CN=$2" 2>/dev/null
    printf '%s\n' "subjectAltName=$names" extendedKeyUsage=serverAuth,clientAuth keyUsage=critical,digitalSignature \
        basicConstraints=critical,CA:FALSE authorityKeyIdentifier=keyid > "$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days 825 \
        -extfile "$work/$1.ext" -out "$work/$1.crt" 2>/dev/null
    secret tidings "$1" kubernetes.io/tls "tls.crt=$(cat "$work/$1.crt")" "tls.key=$(cat "$work/$1.key")" "ca.crt=$ca"
}

make_all() {
    agent=$(password)
    secret tidings tidings-nats Opaque "gateway=$(password)" "presence=$(password)" "metrics=$(password)" "agent=$agent"
    secret tidings-agent tidings-nats Opaque "agent=$agent"
    secret tidings tidings-redis Opaque "presence=$(password)" "metrics=$(password)"
    secret tidings tidings-auth Opaque "jwt-secrets=$(password)" "session-secret=$(password)"
    [ -n "$tls" ] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Tidings" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
    ca=$(cat "$work/ca.crt")
    secret tidings tidings-ca Opaque "ca.crt=$ca"
    secret tidings-agent tidings-ca Opaque "ca.crt=$ca"
    certificate nats-tls nats
    certificate redis-tls redis
}

umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "$tls" ] && ! command -v openssl >/dev/null; then
    echo "secrets.sh: --tls needs openssl" >&2
    exit 1
fi
make_all > "$work/secrets.yaml"
if [ -n "$keep" ]; then
    mkdir -p "$(dirname "$keep")"
    cp "$work/secrets.yaml" "$keep"
fi
cat "$work/secrets.yaml"
