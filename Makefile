# One line each; every target does its own set-up on a fresh machine.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin

.PHONY: run test check cluster cluster-down soak docs bench setup lock

setup:            ## virtual environment with the locked packages
	@$(PYTHON) -m tools.setup

run: setup        ## the embedded product on http://localhost:8000, with a finished example
	@$(VENV)/carrel demo

test: setup       ## every test that belongs to every change
	@$(VENV)/python -m tools.setup system && $(VENV)/python -m tools.run_tests

check: setup      ## lints, types, import contracts, generated files, chart, docs
	@$(VENV)/python -m tools.check

cluster: setup    ## the whole product with Helm on a cluster
	@$(VENV)/python -m tools.setup system && $(VENV)/python -m tools.cluster up

cluster-down: setup ## take it away again
	@$(VENV)/python -m tools.cluster down

soak: setup       ## long fault runs; results under docs/soak.md
	@$(VENV)/python -m tools.setup system && $(VENV)/python -m pytest -m soak tests/soak -p no:cacheprovider --timeout 3600

bench: setup      ## the tables of docs/benchmarks.md
	@$(VENV)/python -m tools.setup system && $(VENV)/python -m tests.load.bench --write docs/benchmarks.md && \
		$(VENV)/python -m tests.load.gateway_bench --write docs/benchmarks.md && \
		$(VENV)/python -m tests.load.jobs --write docs/benchmarks.md && \
		$(VENV)/python -m tests.load.relay --write docs/benchmarks.md && \
		$(VENV)/python -m tests.load.operator_bench --write docs/benchmarks.md

docs: setup       ## the documentation site into site/
	@$(VENV)/mkdocs build --strict

lock: setup       ## resolve all lock files anew
	@$(VENV)/python -m tools.lock
