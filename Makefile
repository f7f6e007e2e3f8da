# Everything happens in .venv; PYTHON chooses the interpreter that makes it (3.10 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Two stamps, because the demo needs no development tools.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# For each of the eight combinations of options that `make fuzz` goes through: 10000 take about ten minutes.
EXAMPLES ?= 10000

# The tests that start Airflows in one lane (see tests/conftest.py), all others in another.
LANES := --numprocesses 2 --no-loadscope-reorder --durations 30

.DEFAULT_GOAL := help
.PHONY: help demo test test-long screenshots bench bench-backfill profile fuzz lint dashboards dashboard-images venv build clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Start Airflow with the provider, a stand-in gateway and an OTLP sink; Ctrl-C ends it
	@$(BIN)/python -m demo

test: $(INSTALLED_DEV) ## Run the tests: units, dag.test() and end to end on this Airflow, a part of them on 3.0
	$(BIN)/python -m pytest -m "not long" $(LANES)
	$(BIN)/nox -s "airflow(3.0)" -- quick

test-long: $(INSTALLED_DEV) ## Run the tests that take minutes, and the units and dag.test() on each Airflow
	$(BIN)/python -m pytest -m long
	$(BIN)/nox

screenshots: $(INSTALLED_DEV) ## Take the pictures in docs/images, from Airflow's UI
	mkdir -p docs/images
	SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/python -m pytest tests/e2e/test_browser.py

bench: $(INSTALLED_DEV) ## Measure the payload path, beside orjson, protobuf and the OpenTelemetry SDK
	$(BIN)/python -m benchmarks

profile: $(INSTALLED_DEV) ## Show where the payload path's time goes
	$(BIN)/python -m benchmarks --profile

fuzz: $(INSTALLED_DEV) ## Feed the payload path with damaged answers, EXAMPLES of them for each option
	ulimit -v 4000000; FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 tests/test_fuzz.py

bench-backfill: $(INSTALLED_DEV) ## Measure a backfill at the gateway's limit: 20 minutes (see benchmarks/backfill.py)
	$(BIN)/python -m benchmarks.backfill

lint: $(INSTALLED_DEV) ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

dashboards: $(INSTALLED_DEV) ## Write deploy/grafana/dashboards from their source in dashboards/
	$(BIN)/python -m dashboards

dashboard-images: $(INSTALLED_DEV) ## Draw the dashboards for docs/, with a day of sandbox data in a Prometheus
	$(PIP) install --group images
	AIRFLOW_HOME=$(CURDIR)/$(VENV)/images $(BIN)/python -m tests.dashboards.images docs/images

venv: $(INSTALLED_DEV) ## Make .venv with the package (editable) and the development tools

build: $(INSTALLED_DEV) ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build

clean: ## Remove everything that these commands have made, .venv too
	rm -rf $(VENV) .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .nox

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --editable ".[sandbox]"
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --group dev
	@touch $@
