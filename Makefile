# Everything from nothing but Python 3.11 or newer: each target makes the virtual environment that it needs.
#
#   make demo             train, be killed in the middle of a save, resume, predict
#   make test             the tests; those of a framework are skipped   (ARGS="-k manager" goes to pytest)
#   make test-frameworks  those of PyTorch, JAX, Paddle and what goes with them
#   make test-devices     those of tensors on an accelerator, on a simulated one (needs g++)
#   make check            format, lint, types, layers and all tests: what CI runs
#   make bench            the project's own benchmark                   (ARGS="--help")
#   make format           rewrite the code as `make check` wants it
#   make clean            remove the environments and what the tools left

PYTHON ?= python3
ARGS ?=
VENV := .venv
FRAMEWORKS := .venv-frameworks
RUN := $(VENV)/bin/

OPTIONAL = $(sort $(wildcard tests/frameworks/test_*.py tests/integrations/test_*.py) \
             $(shell grep -rl --include='test_*.py' importorskip tests))
DEVICES := tests/frameworks/test_torch_devices.py
# PATH: PyTorch looks there for the ninja that builds its extensions.
EVERYTHING := HOLDFAST_NO_SKIP=1 PATH="$(CURDIR)/$(FRAMEWORKS)/bin:$$PATH" python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-frameworks test-devices check format-check lint types layers bench format clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed-demo
	@$(RUN)python demo/story.py

test: $(VENV)/.installed-dev
	$(RUN)python -m pytest $(ARGS)

# All files with a test that is skipped where a library is missing. None is missing here, so no test may be skipped.
test-frameworks: $(FRAMEWORKS)/.installed-test-frameworks
	$(EVERYTHING) -m pytest $(filter-out $(DEVICES),$(OPTIONAL)) $(ARGS)

# In a process of its own, for a process has one kind of accelerator: the simulated one, also where there is a real one.
test-devices: $(FRAMEWORKS)/.installed-test-frameworks
	CUDA_VISIBLE_DEVICES= HOLDFAST_SIMULATED_DEVICE=1 $(EVERYTHING) -m pytest $(DEVICES) $(ARGS)

# One after the other, the quick ones first; each line of the output says which one failed.
check: format-check lint types layers test test-frameworks test-devices

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
	rm -rf $(VENV) $(FRAMEWORKS) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests demo benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp for each extra in an environment. A new pyproject.toml makes them anew.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null || echo "not a Python here"); \
	  echo "Holdfast needs Python 3.11 or newer; '$(PYTHON)' is $$found." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@echo "making $(@D) for '$*' (once)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --editable '.[$*]' || { \
	  echo "pip could not install '.[$*]' into $(@D); its reason is above.$(1)" >&2; exit 1; }
	@touch $@
endef

$(VENV)/.installed-%: pyproject.toml
	$(call environment)

$(FRAMEWORKS)/.installed-%: pyproject.toml
	$(call environment, PaddlePaddle comes for Linux on x86-64 and Python up to 3.13: \
	  'rm -r $(@D)' and PYTHON=python3.11 try another. 'make test' runs all tests that need no framework.)
