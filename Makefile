# Needs git, make and Python >= 3.11; everything else is fetched into .venv and .tools.

VENV := .venv
BIN := $(VENV)/bin
SYNCED := $(VENV)/.synced$(if $(REQUIRE_ALL),-all)
# More workers than cores: tests with real processes mostly wait for leases, graces and restarts.
TEST_WORKERS ?= 6
KUBERNETES_RULES := deploy/kubernetes/components/monitoring/rules.yaml
PACKAGES := services gateway presence_svc metrics_svc tidings_cli tidings_client tests.support.presence_model

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

dashboard: $(SYNCED) ## Build the page that gateways serve, if its sources changed
	@sh scripts/dashboard.sh

screenshots: $(SYNCED) ## Make the pictures of the dashboard that the documentation shows (needs Chromium)
	@SCREENSHOTS=docs/images $(BIN)/pytest tests/browser/test_dashboard_pictures.py

examples: $(SYNCED) ## Serve the JavaScript client's examples, beside a running server (ARGS="--server http://host:8080")
	@sh scripts/examples.sh $(ARGS)

# With ARGS only the Python suites run. They run last, so that their summary is the last output.
test: $(SYNCED) ## Run every suite that this machine can run (REQUIRE_ALL=1: skip none, and Python 3.11 too)
	@[ -n "$(ARGS)" ] || sh scripts/test-js.sh
	@[ -n "$(ARGS)" ] || sh scripts/test-dashboard.sh
	@[ -n "$(ARGS)" ] || $(if $(REQUIRE_ALL),$(MAKE) --no-print-directory test-oldest,echo "Python 3.11: skipped, make test-oldest runs it")
	@TEST_WORKERS=$(TEST_WORKERS) sh scripts/test-python.sh $(ARGS)

# Pages, manifests, the benchmark and the fuzzers are not tested again; properties try a tenth of the examples.
test-oldest: $(SYNCED) ## Run the Python suites on Python 3.11, but for browsers, images and claimed times
	@UV_PROJECT_ENVIRONMENT=.venv-3.11 PYTHON=python3.11 sh scripts/bootstrap.sh
	@HYPOTHESIS_PROFILE=brief TEST_WORKERS=$(TEST_WORKERS) PYTEST=.venv-3.11/bin/pytest sh scripts/test-python.sh \
		-m "not browser and not image and not timing" --ignore-glob="*/test_docs_*" --ignore-glob="*/test_kubernetes_*" \
		--ignore-glob="*/test_bench_*" --ignore-glob="*/test_threat_contract*" --ignore-glob="*/test_threat_fuzzing*"

test-js: $(SYNCED) ## Check and test the JavaScript client and the dashboard
	@sh scripts/test-js.sh
	@sh scripts/test-dashboard.sh

image-test: $(SYNCED) ## Build the image and start both compose files (needs root and podman)
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

guards: $(SYNCED) ## Remove each guard of the security page, and check that its tests fail (ARGS="ticket")
	@$(BIN)/python -m tests.guards $(ARGS)

docs: $(SYNCED) ## Write the pages that are generated from the code
	@$(BIN)/python -m tidings_cli.generate
	@$(BIN)/python scripts/capacity.py
	@$(BIN)/tidings permissions nats > deploy/nats/users.conf
	@$(BIN)/tidings permissions redis > deploy/redis/users.conf.template
	@sh deploy/kubernetes/rules.sh > $(KUBERNETES_RULES)

check-generated: $(SYNCED) ## Fail if a generated page is out of date
	@$(BIN)/python -m tidings_cli.generate --check
	@$(BIN)/python scripts/capacity.py --check
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
	@sh scripts/npm-ci.sh bench/peers && touch $@ \
		|| echo "bench: the peers from npm could not be installed"

lock: $(SYNCED) ## Write uv.lock from pyproject.toml
	@.tools/uv/bin/uv lock

clean: ## Remove everything built here, but not the data in .tidings
	rm -rf $(VENV) .venv-3.11 .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis dist clients/js/node_modules clients/js/dist scripts/site/node_modules dashboard/node_modules gateway/dashboard/dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
