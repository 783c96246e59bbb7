# Everything from nothing but Python 3.11 or newer: each target makes the virtual environment that it needs.
#
#   make demo     train, be killed in the middle of a save, resume, predict
#   make test     the tests                        (ARGS="-k manager" goes to pytest)
#   make check    format, lint, types, layers and tests: what CI runs
#   make bench    the project's own benchmark      (ARGS="--help")
#   make format   rewrite the code as `make check` wants it
#   make clean    remove the environment and what the tools left

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format-check lint types layers bench format clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed-demo
	@$(RUN)python demo/story.py

test: $(VENV)/.installed-dev
	$(RUN)python -m pytest $(ARGS)

# One after the other, the quick ones first; each line of the output says which one failed.
check: format-check lint types layers test

format-check: $(VENV)/.installed-dev
	$(RUN)ruff format --check

lint: $(VENV)/.installed-dev
	$(RUN)ruff check

types: $(VENV)/.installed-dev
	$(RUN)mypy

layers: $(VENV)/.installed-dev
	$(RUN)lint-imports --no-logo

bench: $(VENV)/.installed-bench
	$(RUN)python -m benchmarks $(ARGS)

format: $(VENV)/.installed-dev
	$(RUN)ruff format
	$(RUN)ruff check --fix

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests demo benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp for each extra, all in one environment. A new pyproject.toml makes them anew.
$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null || echo "not a Python here"); \
	  echo "Holdfast needs Python 3.11 or newer; '$(PYTHON)' is $$found." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "making $(VENV) for '$*' (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)python -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@
