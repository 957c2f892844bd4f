# Needs only Python 3.11 or 3.12 with venv, and make. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.done

# The store that README's commands name: `digits` in $MEMSCORE_HOME or ~/memscore; a URL keeps its ?options at the end.
# Other data get a name of their own, and ARGS="--store ..." takes any.
STORES := $(or $(MEMSCORE_HOME),$(HOME)/memscore)
STORE := $(shell printf '%s' '$(STORES)' | sed -E 's|/?([?].*)?$$|/digits\1|')
NAMES_STORE := $(findstring --store,$(ARGS))$(findstring --data,$(ARGS))

.PHONY: run test lint format reference slow oldest-torch setup
run: $(SETUP)
	$(BIN)/python -m memscore.estimate $(if $(NAMES_STORE),,--store '$(STORE)') $(ARGS)

test: lint
	$(BIN)/python -m tests.halves

slow: $(SETUP)
	$(BIN)/python -m pytest -m slow

# Half a gigabyte is downloaded, and deleted after the tests.
oldest-torch: $(SETUP)
	$(BIN)/python -m tests.oldest_torch $(VENV)/oldest-torch

lint: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(SETUP)
	$(BIN)/python docs/generate_reference.py

setup: $(SETUP)
$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"memscore needs Python 3.11 or 3.12, got {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
