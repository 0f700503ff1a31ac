# make study    install into .venv and run the default study     make test   install and run the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SCALING_DATA ?= ../shared/scaling_data
PREFLIGHTS ?= tests/preflight
# Each worker takes the next file of pytest's order, in which tests/conftest.py puts the longest first.
BY_FILE := --dist=loadfile --no-loadscope-reorder

.PHONY: study test bench layouts hosts faults slurm parity preflight lint types check constraints nightly clean help
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python >= 3.11 is needed; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing pinned dependencies into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

study: $(STAMP)  ## build the corpus, train every cell, fit the laws, write runs/chinchilla/report.html
	@$(BIN)/python -m experiments chinchilla

test: $(STAMP)  ## the tests, on 8 virtual CPU devices
	@$(BIN)/python -m pytest -n auto --maxprocesses=8 $(BY_FILE)

faults: $(STAMP)  ## saves, runs and workers of a study killed, interrupted and starved in every way; needs a C compiler (15 minutes)
	@$(BIN)/python tests/faults/saves.py
	@$(BIN)/python tests/faults/kills.py
	@$(BIN)/python tests/faults/leases.py
	@$(BIN)/python tests/faults/signals.py

slurm: $(STAMP)  ## studies through a real SLURM of two virtual nodes (2 minutes; root, and Debian's slurm-wlm and munge)
	@$(BIN)/python -m pytest -rs tests/slurm

$(VENV)/parity: $(STAMP)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[parity]'
	@touch $@

layouts: $(STAMP)  ## every family on every layout of eight devices against one device, and every case of the models' laws
	@LAYOUTS=all $(BIN)/python -m pytest -n auto --maxprocesses=8 $(BY_FILE) tests/layouts tests/model

hosts: $(STAMP)  ## runs of two and four processes on this machine (3 minutes)
	@HOSTS=all $(BIN)/python -m pytest -n auto --maxprocesses=8 $(BY_FILE) tests/hosts

parity: $(VENV)/parity  ## every family against transformers, live (installs torch and transformers)
	@$(BIN)/python -m pytest tests/parity

$(VENV)/preflight: $(STAMP)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[tpu,gpu]'
	@touch $@

bench: $(VENV)/parity  ## the benchmarks on CPU, against PyTorch (installs torch and transformers); quiet cores, please
	@$(BIN)/python -m experiments benchmarks train_cpu

preflight: $(VENV)/preflight  ## every family compiled for TPUs and GPUs that are not there (installs their compilers, 3 GB)
	@$(BIN)/python -m pytest -n auto --maxprocesses=2 $(BY_FILE) $(PREFLIGHTS)

lint: $(STAMP)  ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)  ## mypy
	@$(BIN)/mypy

check: lint types test  ## what to run before a commit; CI also runs parity and preflight

nightly: $(STAMP)  ## the long checks: both studies, the default one killed at random moments, published analyses, layouts, hosts, preflights, mutants, and the commands of all pages
	@$(BIN)/python -m experiments chinchilla
	@$(BIN)/python tests/nightly/kill_study.py chinchilla --reference runs/chinchilla
	@$(BIN)/python -m experiments chinchilla_bpe
	@$(BIN)/python -m tests.nightly.large_study
	@$(BIN)/python -m tests.nightly.many_cells
	@$(BIN)/python -m tests.nightly.large_text
	@$(BIN)/python tests/nightly/installed.py
	@$(BIN)/python tests/nightly/replicate.py $(SCALING_DATA)
	@$(BIN)/python -m tests.nightly.coverage
	@$(BIN)/python -m tests.nightly.mutants
	@OBJECTIVES=all $(BIN)/python -m pytest -n auto --maxprocesses=8 $(BY_FILE) tests/data
	@INFER=all $(BIN)/python -m pytest -n auto --maxprocesses=8 $(BY_FILE) tests/infer
	@TABLES=all $(BIN)/python -m pytest tests/scaling/test_large.py
	@$(MAKE) layouts hosts faults preflight
	@$(BIN)/python -m experiments.benchmarks.hardware --check
	@$(BIN)/python -m tests.nightly.documented_commands --data=$(SCALING_DATA)
	@if test -x .venv-3.12/bin/python; then $(MAKE) preflight VENV=.venv-3.12; fi

constraints:  ## write constraints.txt from the versions in .venv (3.11) and .venv-3.12, after `make parity preflight` and `pip install .[curation,datatrove]` in them
	@.venv/bin/python .ci/constraints.py .venv .venv-3.12 > constraints.new && mv constraints.new constraints.txt

clean:  ## remove the environment and every result
	rm -rf $(VENV) runs
