#!/bin/sh
# Run the Python suites: several tests at once, then those with time limits alone. No test runs twice.
# With arguments: only the named tests, several at once. PYTEST names the runner of another Python.
set -u
cd "$(dirname "$0")/.."

pytest=${PYTEST:-.venv/bin/pytest}
[ $# -eq 0 ] || exec "$pytest" -n "${TEST_WORKERS:-6}" --dist loadgroup "$@"

"$pytest" -n "${TEST_WORKERS:-6}" --dist loadgroup -m "not timing"
beside=$?
echo
echo "Tests that claim times, alone:"
"$pytest" -m timing
alone=$?
[ $beside -eq 0 ] || exit $beside
exit $alone
