#!/bin/sh
# Print the Secrets that the manifests refer to:
#
#   sh deploy/kubernetes/secrets.sh | kubectl apply -f -
#
# Without options: random values for overlays/dev. Each run prints new ones, so apply them once.
#
#   --keep FILE     generate them once, store them in FILE (readable by its owner only), and print the file
#   --from FOLDER   for overlays/prod: use the files that `tidings secrets FOLDER` wrote
set -eu

fail() {
    echo "secrets.sh: $1" >&2
    exit 2
}

keep="" from=""
while [ $# -gt 0 ]; do
    case $1 in
        --keep | --from)
            [ $# -gt 1 ] || fail "$1 needs a value"
            if [ "$1" = --keep ]; then keep=$2; else from=$2; fi
            shift
            ;;
        *) fail "unknown option $1; there are --keep FILE and --from FOLDER" ;;
    esac
    shift
done
[ -z "$keep" ] || [ -z "$from" ] || fail "--from keeps them itself: leave out --keep"

if [ -n "$keep" ] && [ -s "$keep" ]; then
    cat "$keep"
    exit
fi

# secret NAMESPACE NAME TYPE KEY=VALUE...
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: %s }\ntype: %s\nstringData:\n' "$2" "$1" "$3"
    shift 3
    for pair in "$@"; do
        printf '  %s: |-\n' "${pair%%=*}"
        printf '%s\n' "${pair#*=}" | sed 's/^/    /'
    done
}

# Letters and digits, a letter first: they go into URLs, and into configuration that would read digits as a number.
random() {
    printf 't%s' "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
}

make_random() {
    agent=$(random)
    secret tidings tidings-nats Opaque "operator=$(random)" "gateway=$(random)" "presence=$(random)" \
        "metrics=$(random)" "agent=$agent" "app=$(random)"
    secret tidings-agent tidings-nats Opaque "agent=$agent"
    secret tidings tidings-redis Opaque "presence=$(random)" "metrics=$(random)"
    secret tidings tidings-auth Opaque "session-secret=$(random)"
}

password() {
    value=$(sed -n "s/^ *\"$1\": \"\([^\"]*\)\",*\$/\1/p" "$from/passwords.json")
    [ -n "$value" ] || fail "$from/passwords.json has no $1; run: tidings secrets $from"
    printf '%s' "$value"
}

file() {
    [ -s "$from/$1" ] || fail "there is no $from/$1; run: tidings secrets $from"
    cat "$from/$1"
}

# Each in a variable first: `set -e` ignores a failing command in an argument.
copy_files() {
    ca=$(file ca.pem)
    gateway=$(password nats_gateway) presence=$(password nats_presence) metrics=$(password nats_metrics)
    agent=$(password nats_agent) app=$(password nats_app) operator=$(password nats_tidings)
    secret tidings tidings-nats Opaque "operator=$operator" "gateway=$gateway" "presence=$presence" \
        "metrics=$metrics" "agent=$agent" "app=$app"
    secret tidings-agent tidings-nats Opaque "agent=$agent"
    presence=$(password redis_presence) metrics=$(password redis_metrics) login=$(file redis_sentinel_login)
    operator=$(password redis_operator)
    secret tidings tidings-redis Opaque "operator=$operator" "presence=$presence" "metrics=$metrics" \
        "sentinel-login=$login"
    jwt=$(file jwt_secrets) keys=$(file api_keys)
    secret tidings tidings-auth Opaque "jwt-secrets=$jwt" "api-keys=$keys"
    secret tidings tidings-ca Opaque "ca.crt=$ca"
    secret tidings-agent tidings-ca Opaque "ca.crt=$ca"
    for server in nats redis; do
        certificate=$(file "$server.pem") key=$(file "$server.key")
        secret tidings "$server-tls" kubernetes.io/tls "tls.crt=$certificate" "tls.key=$key" "ca.crt=$ca"
    done
    users=$(file redis_users.acl) replication=$(file redis_replication.conf)
    secret tidings redis-server Opaque "users=$users" "replication=$replication"
    passwords=$(file sentinel_passwords.conf)
    secret tidings redis-sentinel Opaque "passwords=$passwords"
}

umask 077
draft=$(mktemp)
trap 'rm -f "$draft"' EXIT
if [ -n "$from" ]; then copy_files >"$draft"; else make_random >"$draft"; fi
if [ -n "$keep" ]; then
    mkdir -p "$(dirname "$keep")"
    cp "$draft" "$keep"
fi
cat "$draft"
