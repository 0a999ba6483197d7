# Two commands do everything on a fresh machine with Python 3.11 or later:
#   make run    the default pipeline: replays the sample through the whole topology
#   make test   every test, compiled, as plain Python and compiled plainly; as root it installs the Debian packages that the tests drive
#   make campaign  the long campaigns: thousands of examples against QEMU, ten million mutated frames
# Each makes its own environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config.toml

.PHONY: run test campaign lint bench lab clean

run: $(VENV)/run.done
	$(BIN)/python -m pipeline.supervisor $(CONFIG)

test: $(VENV)/test.done lint
	tools/packages.sh
	tools/passes.sh $(BIN)/python $(ARGS)

# Long campaigns; CI runs a short version of each.
campaign: $(VENV)/test.done
	tools/packages.sh
	$(BIN)/python -m pytest -m slow $(ARGS)
	$(BIN)/python -m tests.fuzz

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test.done
	tools/packages.sh
	$(BIN)/python -m tools.bench $(ARGS)

lab: $(VENV)/run.done
	tools/packages.sh
	$(BIN)/python -m tools.lab $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "COLO-proxy needs Python 3.11 or later; this is " + sys.version + "; say PYTHON=... to make")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/test.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/run.done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
