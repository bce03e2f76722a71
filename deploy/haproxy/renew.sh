#!/bin/sh
# Print the commands that put the certificate now in LB_CERTIFICATE into the running HAProxy, for its runtime API:
#
#   docker compose -f deploy/compose.prod.yaml exec -T lb sh -c 'sh /usr/local/etc/haproxy/renew.sh | nc 127.0.0.1 8405'
#
# No connection is cut: new ones get the new certificate.
set -eu
echo "prompt"
echo "set ssl cert $LB_CERTIFICATE <<"
grep -v '^$' "$LB_CERTIFICATE" # an empty line would end it
echo
echo "commit ssl cert $LB_CERTIFICATE"
echo "quit"
