# Everything runs in .venv. PYTHON selects the interpreter that creates it (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Two stamps, because the demo needs no development tools.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# Examples for each of the eight combinations of options in `make fuzz`: 10000 take about ten minutes.
EXAMPLES ?= 10000

# Two workers: one for the tests that start Airflow (see tests/conftest.py), one for all others.
LANES := --numprocesses 2 --no-loadscope-reorder --durations 30

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-compose screenshots bench bench-backfill profile fuzz lint docs dashboards dashboard-images venv build clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Start Airflow with the provider, a sandbox gateway and an OTLP sink; Ctrl-C stops it
	@$(BIN)/python -m demo

test: $(INSTALLED_DEV) ## Run the unit, dag.test() and end-to-end tests on this Airflow, and a subset on 3.0
	$(BIN)/python -m pytest -m "not long" $(LANES)
	$(BIN)/nox -s "airflow(3.0)" -- quick

test-long: $(INSTALLED_DEV) ## Run the tests that take minutes, and the unit and dag.test() tests on every Airflow
	$(BIN)/python -m pytest -m long
	$(BIN)/nox

test-compose: $(INSTALLED_DEV) ## Run docker-compose.yaml in a Docker Engine of its own, with stand-ins for the images
	$(BIN)/python -m pytest -rP tests/compose

screenshots: $(INSTALLED_DEV) ## Retake the screenshots of Airflow's UI in docs/images
	mkdir -p docs/images
	SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/python -m pytest tests/e2e/test_browser.py tests/page/test_in_browser.py

bench: $(INSTALLED_DEV) ## Benchmark the payload path against orjson, protobuf and the OpenTelemetry SDK
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.window

profile: $(INSTALLED_DEV) ## Profile the payload path
	$(BIN)/python -m benchmarks --profile

fuzz: $(INSTALLED_DEV) ## Fuzz the payload path with damaged responses, EXAMPLES for each set of options
	ulimit -v 4000000; FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/test_fuzz.py

bench-backfill: $(INSTALLED_DEV) ## Benchmark a backfill at the gateway's limit: 20 minutes (see benchmarks/backfill.py)
	$(BIN)/python -m benchmarks.backfill

lint: $(INSTALLED_DEV) ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(INSTALLED_DEV) ## Build the documentation site into build/docs; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

dashboards: $(INSTALLED_DEV) ## Generate deploy/grafana/dashboards from dashboards/
	$(BIN)/python -m dashboards

dashboard-images: $(INSTALLED_DEV) ## Draw the dashboards in docs/images, from a day of sandbox data in a Prometheus
	$(PIP) install --group images
	AIRFLOW_HOME=$(CURDIR)/$(VENV)/images $(BIN)/python -m tests.dashboards.images docs/images

venv: $(INSTALLED_DEV) ## Create .venv with the package (editable) and the development tools

build: $(INSTALLED_DEV) ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build

clean: ## Remove everything that these targets create, including .venv
	rm -rf $(VENV) .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .nox

$(INSTALLED): pyproject.toml
	@echo "Installing Airflow and the provider into $(VENV). The first time, this takes two or three minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade "pip>=25.1"
	@$(PIP) install --editable ".[sandbox]"
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --group dev
	@touch $@
