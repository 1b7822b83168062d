# Everything is installed in .venv; a second run installs only what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Keep the tests of a file in one process: they share slow fixtures.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: help install quickstart test test-all test-browser chromium docs lint clean

help:
	@echo "make quickstart    train and score a phone classifier on synthetic speech (2 minutes)"
	@echo "make test          run the tests (a few minutes)"
	@echo "make test-all      run the slow tests, too"
	@echo "make test-browser  test the web page in Chromium; installs Chromium by apt if missing"
	@echo "make docs          build the documentation site: site/index.html"
	@echo "make install       set up $(VENV)"
	@echo "make lint          check style, types and the order of imports"
	@echo "make clean         remove $(VENV) and caches"

install: $(VENV)/installed
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("speechattn needs Python 3.10 or later; set PYTHON=...") if sys.version_info < (3, 10) else None'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[espeak]"
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

$(VENV)/installed-docs: pyproject.toml $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[docs]"
	@touch $@

quickstart: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash recipes/quickstart/run.sh

test: $(VENV)/installed-dev
	$(BIN)/pytest -q $(PARALLEL)

test-all: $(VENV)/installed-dev
	$(BIN)/pytest -q $(PARALLEL) -m "not browser"

test-browser: $(VENV)/installed-dev chromium
	$(BIN)/pytest -q -m browser --reruns 2 tests/browser

chromium:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	if command -v apt-get > /dev/null; then \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; \
	else \
	  echo "the tests of the web page need Chromium or Chrome: install one and try again" >&2; exit 1; \
	fi

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
