# The three commands of every day. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install browser demo test fast installed peers bench gpu-wheels lint clean

install: $(VENV)/.installed  ## a virtual environment with everything for a CPU

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

demo: install  ## seven tasks by reinforcement fine-tuning on nano, a few minutes on a laptop
	$(BIN)/cptbench run --trainer rft

browser:  # for the tests of pages; without it they are skipped, and say so
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium >/dev/null) \
		|| echo "no chromium here: install it to run the tests of pages"

# Tests are shared out one by one; those that read one costly fixture stay together (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# Each of these tests leaves an environment or a run of its own. Where tests share a process its caches
# would take a second folder of the same name for the first, so the others keep theirs.
TIDY := -o tmp_path_retention_policy=failed

OTHERS := --ignore tests/installed --ignore tests/peers

test: install browser  ## the test suite, under 15 minutes on two cores
	$(PYTEST) --durations=20 $(OTHERS)

fast: install  ## the tests that train nothing, under 3 minutes
	$(PYTEST) -m "not slow" --durations=10 $(OTHERS)

installed: install  ## the wheel in empty environments, every guide's commands, examples, a cluster
	$(PYTEST) $(TIDY) --durations=10 tests/installed

PEERS := .venv-peers
MAKING := tests/peers/environment.sh $(wildcard tests/peers/shim/*)

$(PEERS)/.installed: pyproject.toml tests/peers/requirements.txt $(MAKING)
	PYTHON=$(PYTHON) tests/peers/environment.sh $(PEERS) tests/peers/requirements.txt

# The environment of a framework with an adapter in examples/: make .venv-ms-swift/.installed
.venv-%/.installed: examples/%/requirements.txt $(MAKING)
	PYTHON=$(PYTHON) tests/peers/environment.sh .venv-$* $<

# A process for each file: vLLM reads its environment once in a process.
peers: $(PEERS)/.installed .venv-llamafactory/.installed  ## what needs the real vLLM and other frameworks, in environments of their own
	@if test -f $(PEERS)/.installed; then set -e; \
	for file in tests/peers/test_*.py; do $(PEERS)/bin/python -m pytest $(TIDY) $$file; done; \
	else echo "tests/peers: skipped, their environment could not be made"; fi

RESULTS := benchmarks/results

bench: install  ## the paired timings of docs/performance.md; on a machine that does nothing else
	$(BIN)/python -m benchmarks.steps --out $(RESULTS)/steps.json
	$(BIN)/python -m benchmarks.evaluation --out $(RESULTS)/evaluation.json
	$(BIN)/python -m benchmarks.plain --trainer sft --out $(RESULTS)/plain-sft.json
	$(BIN)/python -m benchmarks.plain --trainer rft --out $(RESULTS)/plain-rft.json
	$(BIN)/python -m benchmarks.where --trainer sft --out $(RESULTS)/where-sft.json
	$(BIN)/python -m benchmarks.where --trainer rft --out $(RESULTS)/where-rft.json
	$(BIN)/python -m benchmarks.growth --out $(RESULTS)/growth.json
	$(BIN)/python -m benchmarks.stage_start --out $(RESULTS)/stage-start.json

gpu-wheels: install  ## what a GPU machine without a network lacks, for python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu.wheels .gpu-wheels

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/types

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info
