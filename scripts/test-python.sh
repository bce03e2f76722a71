#!/bin/sh
# Run the Python suites, several tests at once. What fails is run once more, alone, and has to pass then: many tests claim
# seconds, and on a machine that runs four of them side by side the others may take those seconds.
set -u
cd "$(dirname "$0")/.."

.venv/bin/pytest -n "${TEST_WORKERS:-4}" --dist loadgroup "$@"
code=$?
# 1 says that tests failed; anything else is no matter of time. Who names tests wants to see them fail.
[ $code -eq 1 ] && [ $# -eq 0 ] || exit $code

echo
echo "What failed is run once more, alone:"
# Tests that share something are noted with its name behind an @, by which they are not found again.
noted=.pytest_cache/v/cache/lastfailed
sed 's/@[^]"]*": true/": true/' $noted >$noted.plain && mv $noted.plain $noted
exec .venv/bin/pytest --last-failed --last-failed-no-failures none --maxfail 3
