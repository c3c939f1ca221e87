# Everything here needs Python >= 3.11 and make; each target builds and fills $(VENV) itself.
#   make demo        a regulatory network from real cells: a table, figures and an h5ad under demo_output/
#   make test        the tests, and the examples in the docstrings
#   make lint types docs bench tutorials clean
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
# Further arguments of every pip install; on Linux without a GPU, this one spares the CUDA libraries:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# Test processes; each computes on one thread, so that they do not fight for the cores.
JOBS ?= 2
PYTEST_ARGS ?=
BENCH ?= benchmarks/bench_*.py

BIN := $(VENV)/bin
PIN := $(if $(CONSTRAINTS),-c $(CONSTRAINTS) --build-constraint $(CONSTRAINTS))
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)
GROUPS := test lint doc
export MPLBACKEND ?= Agg

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs bench tutorials constraints clean

help:
	@sed -n 's/^#   //p' Makefile | head -n 3

demo: $(VENV)/.stamp-package
	$(BIN)/sctrellis demo --out demo_output

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -n $(JOBS) --doctest-modules -o "doctest_optionflags=ELLIPSIS NORMALIZE_WHITESPACE" \
		$(PYTEST_ARGS) tests src

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.stamp-lint
	$(BIN)/mypy

docs: $(VENV)/.stamp-doc
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.stamp-test
	@set -e; for script in $(BENCH); do echo "$$script"; $(BIN)/python "$$script"; done

tutorials: $(VENV)/.stamp-doc
	$(BIN)/jupyter-execute --inplace tutorials/*.ipynb

# Newest versions of everything but torch, which is raised by hand together with the wheels that exist for it.
constraints:
	rm -rf $(VENV)-constraints
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet --upgrade "pip>=25.3"
	grep '^torch==' constraints.txt > $(VENV)-constraints/torch.txt
	$(VENV)-constraints/bin/python -m pip install --quiet $(PIP_ARGS) -c $(VENV)-constraints/torch.txt -e . --group dev hatchling editables
	{ sed -n '/^#/p' constraints.txt; $(VENV)-constraints/bin/python -m pip freeze --exclude-editable \
		| grep -viE 'file:|nvidia|cuda|triton' | sed -E 's/^(torch==[0-9.]+)\+.*/\1/'; } > $(VENV)-constraints/new.txt
	mv $(VENV)-constraints/new.txt constraints.txt

clean:
	rm -rf demo_output docs/_build docs/api/generated docs/tutorials dist build .pytest_cache .mypy_cache .ruff_cache

# The stamps: an environment is filled again when the project's requirements or the pinned versions change.
$(VENV)/.stamp-pip:
	@$(PYTHON) -c 'import sys; sys.exit(f"sctrellis needs Python >= 3.11; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --upgrade "pip>=25.3"
	@touch $@

$(VENV)/.stamp-package: pyproject.toml $(CONSTRAINTS) | $(VENV)/.stamp-pip
	@echo "Installing sctrellis into $(VENV): some minutes the first time."
	$(PIP) $(PIN) -e .
	@touch $@

$(GROUPS:%=$(VENV)/.stamp-%): $(VENV)/.stamp-%: $(VENV)/.stamp-package
	$(PIP) $(PIN) --group $*
	@touch $@
