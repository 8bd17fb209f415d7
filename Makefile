# Every target makes the virtual environment it needs. It needs only make and Python 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
CORPORA ?= ../shared
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test lint check check-corpora types mutants torture turns contenders histories docs bench path capacity install clean

# Run a real AgentScope agent that keeps its conversation in SQLite, and continue it in a second process.
demo: $(BIN)/python
	$(INSTALL) '.[agentscope]'
	$(BIN)/python examples/agentscope_quickstart.py

# Run all that CI runs. The tests use the wheel, as users do.
test: lint check docs

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

# Run the tests of conversations and strings with a folder of more of them: CORPORA=/path/to/folder.
check-corpora: install
	SESSION_HISTORY_TEST_CORPORA='$(abspath $(CORPORA))' $(BIN)/python -m pytest --numprocesses auto -m corpus -o faulthandler_timeout=1800 $(ARGS)

# Build the site in docs/_build. A warning is an error.
docs: install
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

# Measure what a turn costs, in ratios to the floor and to a peer, and draw docs/bench.svg.
bench: $(BIN)/python
	$(INSTALL) '.[bench]'
	cd tests && ../$(BIN)/python -m bench --picture ../docs/bench.svg $(ARGS)

# Count the modules that a turn enters and its changes between them, beside two peers. Fail over the limit.
path: $(BIN)/python
	$(INSTALL) '.[path]'
	cd tests && ../$(BIN)/python -m bench.path

# Weigh a turn and a session in each store, and sum up a plan: ARGS="--sessions 1e9 --turns 10 valkey".
capacity: install
	cd tests && ../$(BIN)/python -m bench.capacity $(ARGS)

# Run mypy and pyright as users of the wheel and of an editable install. Part of check, too.
types: install
	$(BIN)/python -m pytest tests/packaging/test_types.py

# Kill writers, servers, a primary and a cluster's master, 20 times each, and check that acknowledged turns are there.
torture: install
	cd tests && ../$(BIN)/python -m torture $(ARGS)

# Take 10,000 random turns on each of three providers, and check after each what must hold: ARGS="--seed 7 postgresql".
turns: install
	cd tests && ../$(BIN)/python -m driver $(ARGS)

# Let eight processes contend for a session for 60 s on each store, and check their shares and their patience.
contenders: install
	cd tests && ../$(BIN)/python -m contract.contenders $(ARGS)

# Let processes use three stores under kills, stops, cuts and restores for ten minutes each, and check all that they saw.
# ARGS="--minutes 120 valkey" runs longer, ARGS="--keep FOLDER" keeps what a flaw left, ARGS="--bug NAME" plants a bug.
histories: install
	cd tests && ../$(BIN)/python -m histories $(ARGS)

# Plant one bug each in providers and in the core, and show which test catches it: ARGS=core for one part.
mutants: install
	PYTHONPATH=tests $(BIN)/python -m mutants $(ARGS)

install: $(BIN)/python
	$(INSTALL) '.[dev]'

$(BIN)/python:
	$(if $(PYTHON),,$(error No Python 3.11 or newer was found. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-agentscope-runtime
