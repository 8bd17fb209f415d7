# Every target makes the virtual environment it needs. It needs only make and Python 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
CORPORA ?= ../shared
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv)
PIP := $(BIN)/python -m pip --disable-pip-version-check install
WHEEL := '.[agentscope,postgresql,redis,tablestore,testing]'

# Install a group of tools of pyproject.toml, and perhaps the wheel: $(call install,GROUP,WHEEL). Older pips know no groups.
define install
	$(PIP) --quiet 'pip>=25.1'
	$(PIP) --quiet --group $(1) $(2)
endef

.PHONY: demo test lint check check-corpora types mutants torture turns contenders histories docs site-check dist bench path capacity install clean

# Run a real AgentScope agent that keeps its conversation in SQLite, and continue it in a second process.
# uv installs in seconds, where there is one; pip shows its progress.
demo: $(BIN)/python
	$(if $(UV),$(UV) pip install --python $(BIN)/python --reinstall-package session-history,$(PIP)) '.[agentscope]'
	$(BIN)/python examples/agentscope_quickstart.py

# Run all that CI runs. The tests use the wheel, as users do.
test: lint check docs

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The tests start many processes, each of which would compile what it imports if the environment forbade to keep it.
check: export PYTHONDONTWRITEBYTECODE =
check: install
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

# Run the tests of conversations and strings with a folder of more of them: CORPORA=/path/to/folder.
check-corpora: install
	SESSION_HISTORY_TEST_CORPORA='$(abspath $(CORPORA))' $(BIN)/python -m pytest --numprocesses auto -m corpus -o faulthandler_timeout=1800 $(ARGS)

# Build the site in docs/_build, and its Chinese tree in docs/_build/zh. Check links and names. A warning is an error.
docs: install
	rm -rf docs/_build
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs/zh docs/_build/zh
	cd tests && ../$(BIN)/python -m website ../docs/_build

# Look at each page of the site in Chromium, on a phone and on a laptop, in light and dark mode. Search both trees.
# ARGS="'service.html' 'zh/*'" looks at some of the pages.
site-check: docs
	$(call install,site)
	cd tests && ../$(BIN)/python -m website.browser ../docs/_build $(ARGS)

# Build the release in dist: sdist, wheel and SBOM. Run the examples of the README from the wheel in each supported Python.
dist: $(BIN)/python
	$(call install,dist)
	cd tests && ../$(BIN)/python -m release

# Measure what a turn costs, in ratios to the floor and to a peer, and draw docs/concepts/bench.svg.
bench: $(BIN)/python
	$(call install,bench,$(WHEEL))
	cd tests && ../$(BIN)/python -m bench --picture ../docs/concepts/bench.svg $(ARGS)

# Count the modules that a turn enters and its changes between them, beside two peers. Fail over the limit.
path: $(BIN)/python
	$(call install,path,.)
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
	$(call install,dev,$(WHEEL))

$(BIN)/python:
	$(if $(PYTHON),,$(error No Python 3.11 or newer was found. Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .venv-agentscope-runtime
