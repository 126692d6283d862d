# `make up` shows the whole path on this machine, `make test` runs what a change must pass. Both first get what is missing.

SHELL := /bin/bash
PYTHON := .venv/bin/python
SETUP := .cache/setup.done

# The servers that tools/servers builds, in the variables by which anybody may name their own.
BUILT := $(CURDIR)/.cache/servers-new/bin
WITH_BUILT := AGENT_ONCALL_PROMETHEUS=$(BUILT)/prometheus AGENT_ONCALL_PROMTOOL=$(BUILT)/promtool \
	AGENT_ONCALL_ALERTMANAGER=$(BUILT)/alertmanager AGENT_ONCALL_AMTOOL=$(BUILT)/amtool

.PHONY: up test e2e e2e-new slow lint generate setup servers servers-new secrets

up: servers
	@.venv/bin/agent-oncall up $(UP)

test: lint servers
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow and not e2e" $(TESTS)

# They wait for the servers' own time, so they wait side by side.
e2e: servers
	$(PYTHON) -m pytest -n 4 --dist loadfile -m e2e -rP --show-capture=stdout

# The same against the newest Prometheus and Alertmanager.
e2e-new: servers servers-new
	$(WITH_BUILT) $(PYTHON) -m pytest -n 4 --dist loadfile -m e2e -rP --show-capture=stdout

# Where there is Go, with the newest servers as well; without, the tests that need them say so and are skipped.
slow: servers
	@tools/servers || true
	$(PYTHON) -m pytest -m slow
	@if [ -x $(BUILT)/promtool ]; then $(WITH_BUILT) $(PYTHON) -m pytest tests/alert_rules; fi

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

servers-new: setup
	@tools/servers

# What docker-compose.yml needs beside itself.
secrets: setup
	@$(PYTHON) -m stack.credentials
