# Every command a newcomer or a contributor needs. Set-up talks on standard error, so that
# standard output is the command's own.

# A Python >= 3.10: `make setup PYTHON=python3.12` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# The exact version, asked for by itself and first: where pip's settings offer a CPU build
# (2.13.0+cpu), this takes it, while an open requirement would fetch the newest one with CUDA.
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help setup setup-edge demo test check bench docs constraints clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

setup: $(VENV)/.setup  ## install everything into .venv (does nothing when up to date)

setup-edge: $(VENV)/.setup-edge  ## install only what the demo needs: no torch

demo: $(VENV)/.setup-edge  ## the main job: a camera, two sensors, a broker, a model, answers
	@$(BIN)/tinyllava-edge demo $(if $(KEEP),--keep)

test: $(VENV)/.setup  ## run every test
	@$(BIN)/python -m pytest

check: $(VENV)/.setup  ## lint, format, types, layers, and what edge and devices may load
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py

bench: $(VENV)/.setup  ## measure; prints tables
	@set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

docs: $(VENV)/.setup  ## write again what is generated: docs/cli.md and the tree in README.md
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_tree.py

clean:  ## remove .venv, caches and builds
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.10 found; install one, or name it with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >&2 || { rm -rf $(VENV); \
	echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

# llama-cpp-python has no wheel for most machines: it compiles for about five minutes on two
# cores, once, and pip's cache keeps the result for every other environment.
$(VENV)/.setup-edge: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up; the first time llama.cpp is compiled (about five minutes on two cores)" >&2
	@$(PIP) -e '.[gguf,broker]' -c constraints.txt >&2
	@touch $@

$(VENV)/.setup: $(VENV)/.setup-edge
	@$(PIP) $(TORCH) -c constraints.txt >&2
	@$(PIP) -e '.[gguf,broker,export,train,dev]' -c constraints.txt >&2
	@touch $@

# The pins, for Python 3.10 to 3.13. What only a CUDA build of torch needs is left to that build.
constraints: $(VENV)/.setup  ## choose versions anew and write constraints.txt
	$(PIP) -q uv
	@{ echo '# Versions that "make demo" and "make test" install, for Python 3.10 to 3.13.'; \
	echo '# Written by "make constraints", where the four exact pins are chosen by hand.'; \
	printf '%s\n' $(TORCH) transformers==4.57.6 llama-cpp-python==0.3.36 numpy==2.2.6 | \
	$(BIN)/uv pip compile pyproject.toml - --universal --python-version 3.10 --all-extras \
	--no-header --no-annotate --quiet | grep -vE '^(nvidia|cuda|triton|setuptools)'; } > $@.partial
	mv $@.partial $@.txt
