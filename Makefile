# `make demo` and `make test` set everything up in .venv, on a fresh machine with Python 3.11+ and the package index.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint clean

demo: .venv/installed
	$(BIN)/semcast demo --out out

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out build *.egg-info
