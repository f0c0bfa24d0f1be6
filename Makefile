# The few commands that everybody uses. `make demo` and `make test` are all that a new clone needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

.PHONY: demo demo-check test test-fast lint format check bench soak clean env

env: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Igor needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

demo: $(READY)  ## three real nodes on loopback, the jobs of jobdefs/, until Ctrl-C
	@$(BIN)/python -m tools.demo

demo-check: $(READY)  ## the same for about a minute, with the leader killed half-way; prints a table
	@$(BIN)/python -m tools.demo --check

test: $(READY)  ## the whole suite: pure parts on two cores, then real processes and the browser one at a time
	$(PYTEST) -n 2 tests/unit tests/property tests/scripts tests/simulation -m "not soak and not cluster and not browser"
	$(PYTEST) tests -m "(cluster or browser) and not soak"

test-fast: $(READY)
	$(PYTEST) -n 2 tests/unit tests/property tests/scripts -m "not soak and not cluster and not browser"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: format lint test-fast

bench: $(READY)  ## prints tables, writes JSON into out/
	$(BIN)/python -m bench.commit --ledger
	$(BIN)/python -m bench.tls
	$(BIN)/python -m bench.reconnect
	$(BIN)/python -m bench.catch_up
	$(BIN)/python -m bench.backup
	$(BIN)/python -m bench.starts
	$(BIN)/python -m bench.burst
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.failover --etcd

soak: $(READY)  ## long batteries: 20,000 histories of consensus on two cores, then what needs the machine for itself
	$(PYTEST) -n 2 tests/simulation -m soak --timeout=3600
	$(PYTEST) tests -m soak --timeout=3600 --ignore=tests/simulation

clean:
	rm -rf $(VENV) .demo out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
