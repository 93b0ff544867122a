# bitget_pipeline: `make demo` for a first look, `make test` before a change lands. Needs Python 3.11-3.13 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo up down smoke test still chaos drill bench lint types lock clean setup setup-dev

help:
	@echo "make demo    the whole pipeline on a local exchange; nothing else is needed (Ctrl-C stops it)"
	@echo "make up      the same against the real Bitget"
	@echo "make down    stop a demo or pipeline that runs in another terminal"
	@echo "make smoke   the demo, bounded and headless, compared row by row with what the exchange sent"
	@echo "make test    every test, the smoke run included"
	@echo "make still   every test, while the machine stands still for seconds, again and again"
	@echo "make chaos   processes are killed for half an hour, and everything is compared"
	@echo "make drill   the exchange, the stores and the machine fail by name; what was noticed, done and lost, in a table"
	@echo "make bench   what is promised in figures, measured on this machine (about forty minutes)"
	@echo "make lint    style, types and the layers of the house"
	@echo "make lock    resolve the dependencies again into the lock files (needs uv)"
	@echo "make clean   remove the virtual environment and caches (never data)"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11, 3.12 or 3.13 is needed; say which: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python requirements.lock pyproject.toml
	@echo "Setting up the virtual environment (about a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements-dev.lock pyproject.toml
	@echo "Setting up the virtual environment for development (about a minute, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@ $(VENV)/.runtime

setup: $(VENV)/.runtime
setup-dev: $(VENV)/.dev

demo: $(VENV)/.runtime
	@exec $(BIN)/bitget-pipeline up --demo $(ARGS)

up: $(VENV)/.runtime
	@exec $(BIN)/bitget-pipeline up $(ARGS)

down: $(VENV)/.runtime
	@$(BIN)/bitget-pipeline down $(ARGS)

smoke: $(VENV)/.dev
	@$(BIN)/python -m bitget_pipeline_tests.smoke $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m bitget_pipeline_tests.smoke
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

still: $(VENV)/.dev
	@$(BIN)/python -m bitget_pipeline_tests.standstill $(ARGS)

chaos: $(VENV)/.dev
	$(BIN)/python -m bitget_pipeline_tests.chaos --rounds 200
	$(BIN)/python -m bitget_pipeline_tests.chaos.live_through_dagster --rounds 20
	CHAOS_KILLS=60 $(BIN)/python -m pytest -k killed $(ARGS)
	$(BIN)/python -m bitget_pipeline_tests.chaos.history_through_dagster

drill: $(VENV)/.dev
	@$(BIN)/python -m bitget_pipeline_tests.drill $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench.budget
	$(BIN)/python -m bench.efficiency
	$(BIN)/python -m bench.front_half
	$(BIN)/python -m bench.whole_path
	$(BIN)/python -m bench.whole_path --rate 5000
	$(BIN)/python -m bench.dagster_overhead
	$(BIN)/python -m bench.memory

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock:
	uv pip compile pyproject.toml --group build --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet --output-file requirements.lock
	uv pip compile pyproject.toml --group dev --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
