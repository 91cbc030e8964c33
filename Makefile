# make demo: see it work. make test: lint, types, tests; make test-all: the slow ones, too. make docs: the site.
# Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-all lint docs bench clean

demo: $(VENV)/installed
	$(BIN)/viceversa demo

test test-all: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto $(if $(filter test,$@),-m "not slow")

lint: $(VENV)/installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/mypy

docs: $(VENV)/installed-test
	$(BIN)/python -m sphinx -W --keep-going -q -d site/.trees docs site
	@echo site/index.html

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/step.py --size 128
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/translate.py photos
	$(BIN)/python benchmarks/translate.py video
	$(BIN)/python benchmarks/translate.py tiles
	$(BIN)/python benchmarks/evaluate.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) dist site docs/reference .pytest_cache .mypy_cache .ruff_cache
