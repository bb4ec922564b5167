# Every target sets up what it needs: a virtual environment in .venv, nothing outside this folder.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help setup demo test test-slow lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      create .venv and install pvc with everything for development"
	@echo "make demo       answer questions about the example picture and video"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make test       lint and the tests (what CI runs)"
	@echo "make test-slow  the tests that take minutes"
	@echo "make bench      benchmarks, written to benchmarks/results"

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pvc needs Python 3.11 or newer; set PYTHON=...")'
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@$(PY) examples/demo.py

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

test: lint
	$(PY) -m pytest --durations=5

test-slow: $(STAMP)
	$(PY) -m pytest -m slow --durations=10

bench: $(STAMP)
	$(PY) benchmarks/startup.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
