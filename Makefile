# make demo   an untrusted script in the profile `full`: what it tries, and what it gets
# make test   the whole test suite; as root it runs everything as an ordinary user too
# make lint   ruff, mypy and the import contracts
# make bench  the launch benchmarks, as ratios measured in one run
# make clean  remove what these made

VENV ?= .venv
PY = $(VENV)/bin/python
HEXE = $(VENV)/bin/hexe
SETUP = VENV=$(VENV) sh scripts/setup.sh

.PHONY: help demo test lint format bench picture compiled clean

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.run: pyproject.toml scripts/setup.sh
	@$(SETUP) run

$(VENV)/.dev: pyproject.toml scripts/setup.sh
	@$(SETUP) dev

# Bytecode of an editable install, also where PYTHONDONTWRITEBYTECODE keeps Python from writing it on import.
compiled:
	@if [ -w src/hexe ]; then $(PY) -m compileall -q src/hexe; fi

demo: $(VENV)/.run
	@HEXE=$(HEXE) sh examples/demo.sh

test: $(VENV)/.dev compiled
	$(PY) -m pytest

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.dev compiled
	$(PY) -m bench.run

# The picture in the README, from a real session.
picture: $(VENV)/.dev
	$(PY) scripts/picture.py docs/images/run.svg

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
