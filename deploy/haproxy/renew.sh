#!/bin/sh
# Print commands for HAProxy's runtime API that load the current certificate of LB_CERTIFICATE without a restart:
#
#   docker compose -f deploy/compose.prod.yaml exec -T lb sh -c 'sh /usr/local/etc/haproxy/renew.sh | nc 127.0.0.1 8405'
#
# Open connections continue; new ones get the new certificate.
set -eu
echo "prompt"
echo "set ssl cert $LB_CERTIFICATE <<"
grep -v '^$' "$LB_CERTIFICATE" # an empty line would end the command
echo
echo "commit ssl cert $LB_CERTIFICATE"
echo "quit"
