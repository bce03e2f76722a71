#!/bin/sh
# Print the alert rules of deploy/monitoring as the resource that the Prometheus operator reads. `make docs` keeps it.
set -eu
cd "$(dirname "$0")/../monitoring"
cat <<'EOF'
# Written by `make docs` from deploy/monitoring/tidings.rules.yml; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tidings
  namespace: tidings
  # kube-prometheus-stack selects what has its release's name, unless its values say otherwise.
  labels: { app.kubernetes.io/part-of: tidings, release: kube-prometheus-stack }
spec:
EOF
sed -n '/^groups:/,$p' tidings.rules.yml | sed 's/^\(.\)/  \1/'
