# What a developer types. `make` alone lists the targets.
#
#   PYTHON=...       use this environment, as it is: nothing is built or installed (default: .venv, built when missing)
#   WORKERS=...      processes that run the tests (default: 2)
#   BASE_PYTHON=...  the Python 3.10 to 3.13 that .venv is built with (default: python3, else the newest there is)

VENV := .venv
PYTHON ?= $(VENV)/bin/python
BASE_PYTHON ?=
WORKERS ?= 2
# Whole files of tests go to the workers in the order of tests/conftest.py.
PYTEST = $(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
HAS_LINTERS = $(PYTHON) -c 'import mypy, ruff' 2>/dev/null
HAS_SPHINX = $(PYTHON) -c 'import furo, myst_nb, sphinx' 2>/dev/null

# The package is used from this folder, also in an environment where it is not installed.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# On few cores, threads that wait for each other cost more than they bring.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help env env-onedl demo demo-cls demo-elastic demo-full test test-fast has-pytest lint docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile
	@sed -n 's/^#   /     /p' Makefile

env: ## build .venv (7 minutes the first time; at once when it is there)
ifeq ($(PYTHON),$(VENV)/bin/python)
	@bash tools/build_env.sh $(VENV) $(BASE_PYTHON)
else
	@command -v $(PYTHON) >/dev/null || { echo "make: error: PYTHON=$(PYTHON) is not there" >&2; exit 1; }
endif

env-onedl: ## build .venv-onedl, with the OneDL forks; then make test PYTHON=.venv-onedl/bin/python
	@bash tools/build_env.sh --forks $(VENV)-onedl $(BASE_PYTHON)

demo: env ## run the whole process on a toy data set
	@echo "make demo: $(PYTHON) tools/demo.py"
	@$(PYTHON) tools/demo.py

demo-full: env ## the same, and a sample of subnets, and one exported, fine-tuned and written as ONNX and .pt2
	@echo "make demo-full: $(PYTHON) tools/demo.py --full"
	@$(PYTHON) tools/demo.py --full

demo-cls: env ## the whole process for a classifier, on scikit-learn's handwritten digits
	@echo "make demo-cls: $(PYTHON) tools/demo.py --cls"
	@$(PYTHON) tools/demo.py --cls

demo-elastic: env ## a stock detector of MMDetection becomes a family
	@echo "make demo-elastic: $(PYTHON) tools/demo.py --elastic"
	@$(PYTHON) tools/demo.py --elastic

test: env has-pytest ## lint, build the documentation, then run all tests
	@checks=; \
	if $(HAS_LINTERS); then checks=lint; \
	    else echo "make test: LINT SKIPPED, $(PYTHON) has no ruff or no mypy ($(PYTHON) -m pip install ruff mypy)"; fi; \
	if $(HAS_SPHINX); then checks="$$checks docs"; \
	    else echo "make test: DOCS SKIPPED, $(PYTHON) has no sphinx, no myst-nb or no furo ($(PYTHON) -m pip install '.[docs]')"; fi; \
	test -z "$$checks" || $(MAKE) --no-print-directory -j 2 $$checks
	@echo "make test: pytest, $(WORKERS) workers"
	@$(PYTEST)

test-fast: env has-pytest ## the tests that are not slow: no builds, no whole runs of the tools
	@echo "make test-fast: pytest, $(WORKERS) workers"
	@$(PYTEST) -m 'not slow'

has-pytest:
	@$(PYTHON) -c 'import filelock, pytest, pytest_timeout, xdist' 2>/dev/null || \
	    { echo "make: error: $(PYTHON) has no pytest, or not all that the tests need of it" \
	           "($(PYTHON) -m pip install -c constraints.txt filelock pytest pytest-timeout pytest-xdist)" >&2; exit 1; }

lint: env ## ruff and mypy
	@$(HAS_LINTERS) || \
	    { echo "make lint: error: $(PYTHON) has no ruff or no mypy ($(PYTHON) -m pip install ruff mypy)" >&2; exit 1; }
	@echo "make lint: ruff check, mypy"
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy

docs: env ## build the documentation in docs/_build/html; warnings are errors
	@$(HAS_SPHINX) || \
	    { echo "make docs: error: $(PYTHON) has no sphinx, no myst-nb or no furo ($(PYTHON) -m pip install '.[docs]')" >&2; exit 1; }
	@echo "make docs: sphinx"
	@$(PYTHON) -m sphinx -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: env ## build an sdist and a wheel in dist/
	@$(PYTHON) -c 'import build.__main__' 2>/dev/null || \
	    { echo "make wheel: error: $(PYTHON) has no build ($(PYTHON) -m pip install build)" >&2; exit 1; }
	@messages=$$($(PYTHON) -m build --no-isolation --outdir dist . 2>&1) || { echo "$$messages" >&2; exit 1; }
	@rm -rf mmbignas.egg-info
	@ls dist

clean: ## remove caches and build outputs; the environments stay
	rm -rf build dist docs/_build docs/reference/api .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +
