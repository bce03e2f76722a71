# Needs git, make and Python >= 3.11; everything else is fetched into .venv and .tools.

VENV := .venv
BIN := $(VENV)/bin
SYNCED := $(VENV)/.synced$(if $(REQUIRE_ALL),-all)
# More than two cores' worth: the tests with real processes mostly wait for leases, graces and restarts.
TEST_WORKERS ?= 6
KUBERNETES_RULES := deploy/kubernetes/components/monitoring/rules.yaml
PACKAGES := services gateway presence_svc metrics_svc tidings_client tests.support.presence_model

.DEFAULT_GOAL := help
.PHONY: help run examples dashboard screenshots test test-js test-oldest image-test chaos lint types format guards docs check-generated site site-serve bench lock clean

help: ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-16s %s\n", $$1, $$2 }'

# Again only when the lock or the project changed.
$(SYNCED): uv.lock pyproject.toml scripts/uv.txt scripts/bootstrap.sh scripts/node.sh
	@sh scripts/bootstrap.sh
	@touch $@

run: $(SYNCED) ## Run everything on this machine (options: ARGS="--port 9000")
	@sh scripts/dashboard.sh --try
	@exec $(BIN)/tidings up $(ARGS)

dashboard: $(SYNCED) ## Build the page that gateways serve, if anything it is made of changed
	@sh scripts/dashboard.sh

screenshots: $(SYNCED) ## Make the pictures of the dashboard that the documentation shows (needs Chromium)
	@SCREENSHOTS=docs/images $(BIN)/pytest tests/browser/test_dashboard_pictures.py

examples: $(SYNCED) ## Serve the JavaScript client's examples, beside a running server (ARGS="--server http://host:8080")
	@sh scripts/examples.sh $(ARGS)

# With ARGS only the Python suites are meant. Their closing line comes last.
test: $(SYNCED) ## Run every suite this machine can run (REQUIRE_ALL=1: skip none, and Python 3.11 too)
	@[ -n "$(ARGS)" ] || sh scripts/test-js.sh
	@[ -n "$(ARGS)" ] || sh scripts/test-dashboard.sh
	@[ -n "$(ARGS)" ] || $(if $(REQUIRE_ALL),$(MAKE) --no-print-directory test-oldest,echo "Python 3.11: skipped, make test-oldest runs it")
	@TEST_WORKERS=$(TEST_WORKERS) sh scripts/test-python.sh $(ARGS)

# Pages, manifests, the benchmark and the fuzzers are not tried again; properties try a tenth of the examples.
test-oldest: $(SYNCED) ## Run the Python suites on Python 3.11, but for browsers, images and claimed times
	@UV_PROJECT_ENVIRONMENT=.venv-3.11 PYTHON=python3.11 sh scripts/bootstrap.sh
	@HYPOTHESIS_PROFILE=brief TEST_WORKERS=$(TEST_WORKERS) PYTEST=.venv-3.11/bin/pytest sh scripts/test-python.sh \
		-m "not browser and not image and not timing" --ignore-glob="*/test_docs_*" --ignore-glob="*/test_kubernetes_*" \
		--ignore-glob="*/test_bench_*" --ignore-glob="*/test_threat_contract*" --ignore-glob="*/test_threat_fuzzing*"

test-js: $(SYNCED) ## Check and test the JavaScript client and the dashboard
	@sh scripts/test-js.sh
	@sh scripts/test-dashboard.sh

image-test: $(SYNCED) ## Build the image and bring up the compose file to try it (needs root, and podman)
	@REQUIRE_ALL=1 $(BIN)/pytest -s tests/image $(ARGS)

chaos: $(SYNCED) ## Break a deployment some 200 times under load, and check what clients saw (ARGS="--seed 1")
	@$(BIN)/python -m tests.chaos.long_run $(ARGS)

lint: $(SYNCED) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(SYNCED) ## Check types
	@$(BIN)/mypy $(addprefix -p ,$(PACKAGES)) -m tests.support.metrics_store_memory

format: $(SYNCED) ## Format, and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

guards: $(SYNCED) ## Take out each guard of the security page, and see its tests fail (ARGS="ticket")
	@$(BIN)/python -m tests.guards $(ARGS)

docs: $(SYNCED) ## Write the pages that are generated from the code
	@$(BIN)/tidings config --docs configuration > docs/configuration.md
	@$(BIN)/tidings config --docs metrics > docs/metrics.md
	@$(BIN)/python -m services.cli.code_tables docs/protocol.md
	@$(BIN)/python -m gateway.contracts --types clients/js/src/generated --python clients/python/tidings_client/generated --page docs/reference.md
	@$(BIN)/python scripts/capacity.py
	@$(BIN)/tidings permissions nats > deploy/nats/users.conf
	@$(BIN)/tidings permissions redis > deploy/redis/users.conf.template
	@sh deploy/kubernetes/rules.sh > $(KUBERNETES_RULES)

check-generated: $(SYNCED) ## Fail if a generated page is out of date
	@$(BIN)/tidings config --docs configuration | diff -u docs/configuration.md - || { echo "run: make docs"; exit 1; }
	@$(BIN)/tidings config --docs metrics | diff -u docs/metrics.md - || { echo "run: make docs"; exit 1; }
	@$(BIN)/python -m services.cli.code_tables --check docs/protocol.md
	@$(BIN)/python scripts/capacity.py --check
	@$(BIN)/python -m gateway.contracts --check --types clients/js/src/generated --python clients/python/tidings_client/generated --page docs/reference.md
	@sh deploy/kubernetes/rules.sh | diff -u $(KUBERNETES_RULES) - || { echo "run: make docs"; exit 1; }
	@$(BIN)/python -m bench.page --check

site: $(SYNCED) ## Build the documentation as a site, into dist/site
	@sh scripts/site.sh build $(ARGS)
	@echo "dist/site/index.html is the first page"

site-serve: $(SYNCED) ## Show that site while you write (ARGS="--dev-addr 127.0.0.1:8001")
	@sh scripts/site.sh serve $(ARGS)

bench: $(SYNCED) bench/peers/node_modules ## Measure this machine beside named peers, in 25 minutes (ARGS="--quick", "--help")
	@.tools/uv/bin/uv sync --quiet --frozen --inexact --extra local --group bench
	@$(BIN)/python -m bench $(ARGS)

# Without the peers that npm brings the others are still measured.
bench/peers/node_modules: bench/peers/package.json bench/peers/package-lock.json | $(SYNCED)
	@sh scripts/node.sh npm --prefix bench/peers ci --ignore-scripts --no-audit --no-fund --silent && touch $@ \
		|| echo "bench: the peers from npm could not be installed"

lock: $(SYNCED) ## Write uv.lock anew from pyproject.toml
	@.tools/uv/bin/uv lock

clean: ## Remove what was made here, but not the data in .tidings
	rm -rf $(VENV) .venv-3.11 .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis dist clients/js/node_modules clients/js/dist scripts/site/node_modules dashboard/node_modules gateway/page/dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
