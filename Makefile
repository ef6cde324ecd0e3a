# The three commands of every day. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test fast lint clean

install: $(VENV)/.installed  ## a virtual environment with everything for a CPU

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

demo: install  ## seven tasks by reinforcement fine-tuning on nano, a few minutes on a laptop
	$(BIN)/cptbench run --trainer rft

test: install  ## the whole test suite
	$(BIN)/python -m pytest

fast: install  ## the tests that train nothing
	$(BIN)/python -m pytest -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
