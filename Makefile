# Everything happens in .venv: nothing is installed anywhere else.
# Another interpreter: make demo PYTHON=/path/to/python3.12
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin

.PHONY: install demo test test-fast fuzz lint bench docs docs-cli clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmcoop needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/installed-lint: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	touch $@

demo: install  ## the whole story on real handwriting, under demo/
	rm -rf demo
	mkdir demo
	cd demo && $(BIN)/mmcoop build-dataset
	cd demo && $(BIN)/mmcoop train
	cd demo && $(BIN)/mmcoop valuate --out scores.parquet
	cd demo && $(BIN)/mmcoop enhance
	cd demo && $(BIN)/mmcoop evaluate --run runs/joint --run runs/joint-sample

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-fast: $(VENV)/installed-test  ## the tests that take no time, for use while developing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

fuzz: $(VENV)/installed-test  ## minutes of damaged files, for every reader
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed-bench: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/valuation_floor.py
	$(BIN)/python benchmarks/valuation_memory.py
	$(BIN)/python benchmarks/valuation_peers.py --samples 1000

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: $(VENV)/installed-docs  ## the documentation site, under build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-cli: install  ## the reference of the command line, written from its help
	$(BIN)/python docs/reference/cli.py

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
