#!/bin/sh
# Print the alert rules of deploy/monitoring as a resource of the Prometheus operator. `make docs` calls it.
set -eu
cd "$(dirname "$0")/../monitoring"
cat <<'EOF'
# Written by `make docs` from deploy/monitoring/tidings.rules.yml; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tidings
  namespace: tidings
  # By default kube-prometheus-stack selects resources with the name of its release.
  labels: { app.kubernetes.io/part-of: tidings, release: kube-prometheus-stack }
spec:
EOF
sed -n '/^groups:/,$p' tidings.rules.yml | sed 's/^\(.\)/  \1/'
