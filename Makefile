.DEFAULT_GOAL := help
.PHONY: help env train test test-all lint format docs requirements clean
PYTHON ?= python3
BIN := .venv/bin

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

env: .venv/complete  ## Build the environment in .venv (hash-pinned, needs a package index)

.venv/complete: requirements/all.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/all.txt
	@touch $@

train: env  ## Train the CNN on both sides, on data that needs no download, and compare the two
	$(BIN)/python -m keras_impl.train --config configs/digits.yaml --run.dir runs/keras-digits --run.overwrite true
	$(BIN)/python -m lightning_impl.train --config configs/digits.yaml --run.dir runs/lightning-digits --run.overwrite true
	$(BIN)/python -m experiment runs runs/keras-digits runs/lightning-digits --figure runs/side_by_side.png

test: env  ## Run the test suite
	$(BIN)/python -m pytest

test-all: env  ## Run the slow tests too
	$(BIN)/python -m pytest -m "slow or not slow"

lint: env  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: env  ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: env  ## Make the site of the guide in build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . build/site
	@echo '<meta http-equiv="refresh" content="0; url=docs/contents.html">' > build/site/index.html
	@echo build/site/index.html

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url

requirements: env  ## Pin the newest versions that pyproject.toml admits
	$(COMPILE) --upgrade --all-extras pyproject.toml --output-file requirements/all.txt
	echo uv | $(COMPILE) --upgrade - --output-file requirements/uv.txt

clean:  ## Remove the environment and caches, but no run
	rm -rf .venv .pytest_cache .ruff_cache
