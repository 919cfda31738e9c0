# Everything a person types. `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

CONFIG ?= deployments/local.yaml
PYTHON ?= python3
TORCH := 2.13.0
UV := 0.13.9
BIN := .venv/bin
STAMP := .venv/.stamp

# Without byte code every start of a program compiles its libraries again: 2 to 5 seconds each.
unexport PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help demo test test-all bench lint schema lock up down status history login env clean

help:  ## list the targets
	@sed -nE '/^[a-z-]+:.*## /{s/^([a-z-]+):.*## (.*)/  make \1\t\2/; s/[$$][$$]/$$/g; p}' $(MAKEFILE_LIST) | expand -t 18

demo: $(STAMP)  ## the whole loop in minutes: train, gate, release, roll out, roll back
	@$(BIN)/python -m flows.terminal.demo $(CONFIG)

up: $(STAMP)  ## start or repair the stack: Prefect, the reconciler, the endpoints
	@$(BIN)/python -m deployments.local up $(CONFIG)

down: $(STAMP)  ## stop the stack; data, releases and the ledger stay
	@$(BIN)/python -m deployments.local down $(CONFIG)

status: $(STAMP)  ## what serves where; exit code not 0 if anything is not well
	@$(BIN)/python -m flows status $(CONFIG)

history: $(STAMP)  ## who promoted which version when, and why
	@$(BIN)/python -m flows history $(CONFIG)

login: $(STAMP)  ## print what the Prefect UI asks for; it opens everything
	@$(BIN)/python -m deployments.local login $(CONFIG)

env: $(STAMP)  ## print what another shell needs: eval "$$(make -s env)"
	@$(BIN)/python -m deployments.local env $(CONFIG)

test: $(STAMP)  ## all fast tests, real servers on loopback included (under 10 minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(STAMP)  ## all tests; the slow ones are those marked `slow`
	@$(BIN)/python -m pytest

bench: $(STAMP)  ## print the figures of tests/benchmarks/
	@for file in tests/benchmarks/*.py; do name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m tests.benchmarks.$$name; done

lint: $(STAMP)  ## style, types, layers, stale schema
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYTHONPATH=. $(BIN)/lint-imports --no-cache
	$(BIN)/pyright
	$(BIN)/python -m policy.config --schema | diff -u deployments/schema.json - \
	  || { echo "deployments/schema.json is stale: make schema"; exit 1; }

schema: $(STAMP)  ## write deployments/schema.json from policy/config/
	@$(BIN)/python -m policy.config --schema > deployments/schema.json

lock: $(STAMP)  ## resolve constraints.txt anew
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev pyproject.toml \
	  --upgrade --no-annotate --no-emit-package torch -o constraints.txt

clean: $(STAMP)  ## stop the stack and delete everything that this configuration kept
	@$(BIN)/python -m deployments.local clean $(CONFIG)

# torch first and by pip: uv would choose the CUDA build on Linux even where a CPU wheel is given.
$(STAMP): pyproject.toml constraints.txt
	@echo "setting up .venv (about 200 packages; a minute or two)"
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; assert (3, 11) <= v < (3, 14), f"found Python {v}, expected 3.11 to 3.13: make PYTHON=python3.12"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps torch==$(TORCH) uv==$(UV)
	$(BIN)/uv pip install -q -c constraints.txt -e '.[dev]'
	touch $@
