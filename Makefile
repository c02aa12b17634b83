# Two commands for everybody: `make demo` and `make test`. Paths are relative, so that a checkout may lie anywhere.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := "$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench notebook clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/core.stamp  ## Research on real prices, about a minute after installation
	"$(BIN)/aqf" demo

test: $(VENV)/test.stamp  ## Check style, types and layers, then run the test suite
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"
	"$(BIN)/python" -m pytest

test-all: $(VENV)/test.stamp  ## The test suite and its slow, exhaustive part
	"$(BIN)/python" -m pytest -m ""

lint: $(VENV)/test.stamp  ## Style, types and layers only
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

bench: $(VENV)/test.stamp  ## Measure side by side with the peers, in one run
	"$(BIN)/python" -m benchmarks

notebook: $(VENV)/notebook.stamp  ## Open the notebooks
	"$(BIN)/jupyter" lab notebooks

clean:  ## Remove the virtual environment and caches; data in .aqf stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(VENV)/python.stamp:
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "AQF needs Python 3.11, 3.12 or 3.13: make demo PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	$(INSTALL) --upgrade pip
	@touch "$@"

$(VENV)/core.stamp: $(VENV)/python.stamp pyproject.toml constraints.txt
	@echo "Installing (a few minutes the first time) ..."
	$(INSTALL) --editable .
	@touch "$@"

$(VENV)/test.stamp: $(VENV)/core.stamp
	$(INSTALL) --editable '.[test]'
	@touch "$@"

$(VENV)/notebook.stamp: $(VENV)/core.stamp
	$(INSTALL) --editable '.[notebook]'
	@touch "$@"
