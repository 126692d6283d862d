# `make up` shows the whole path on this machine, `make test` runs what a change must pass. Both first get what is missing.

SHELL := /bin/bash
PYTHON := .venv/bin/python
SETUP := .cache/setup.done

.PHONY: up test e2e slow lint generate setup servers

up: servers
	@.venv/bin/agent-oncall up $(UP)

test: lint servers
	$(PYTHON) -m pytest -m "not slow and not e2e" $(TESTS)

e2e: servers
	$(PYTHON) -m pytest -m e2e

slow: servers
	$(PYTHON) -m pytest -m slow

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

generate: setup
	.venv/bin/agent-oncall generate

setup: $(SETUP)

$(SETUP): pyproject.toml uv.lock tools/setup
	@tools/setup
	@mkdir -p $(@D) && touch $@

servers: setup
	@$(PYTHON) -m stack.servers
