# Everything sets itself up in .venv, on a fresh machine with Python 3.11+ and the package index.
PYTHON ?= python3
BIN = .venv/bin
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test check light lint docs web-check clean

demo: .venv/package      # the bundled photo over 20, 10, 5 and 1 dB: out/demo.png
	$(BIN)/semcast demo --out out --force

test: .venv/developer    # minutes
	$(PYTEST) -m "not slow"

check: lint docs light   # what CI looks at, but for web-check
	$(PYTEST)

light:                   # the package alone, without torch, in an environment of its own
	rm -rf .venv-light
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/pip install --quiet --disable-pip-version-check .
	.venv-light/bin/python tests/light.py
	rm -rf .venv-light

lint: .venv/developer
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/developer    # out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

web-check: .venv/developer out/axe/package/axe.min.js   # the page in a real browser; exit code 5 of pytest: there is none
	$(BIN)/python -m pytest tests/web/browser.py || [ $$? -eq 5 ]

out/axe/package/axe.min.js:   # axe-core, which looks for what keeps people out, if npm is there
	mkdir -p out/axe
	-cd out/axe && npm pack --silent axe-core && tar xzf axe-core-*.tgz

.venv/package: pyproject.toml
	@echo "Setting up .venv ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --editable .
	touch $@

.venv/developer: pyproject.toml
	@echo "Setting up .venv with everything developers need: some minutes ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ .venv/package

clean:
	rm -rf .venv .venv-light out build *.egg-info
