# `make search` runs the default search, `make test` every check, `make bench` the speed measurements.
# They first make .venv and install what they need there; pip runs again only when pyproject.toml has
# changed.

PYTHON ?= python3
SPACE ?= pocket

VENV := .venv
BIN := $(VENV)/bin
# -qq keeps the long list of downloads off the screen; errors still show.
PIP_INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq

# Tests run offline and one thread a process: several trials share the cores. Two files at a time.
TEST_ENV := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false \
	OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

.PHONY: search test bench
.DELETE_ON_ERROR:

search: $(VENV)/.installed
	$(BIN)/detox-tune search $(SPACE)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile \
		--cov --cov-report=term --cov-fail-under=95

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing detox_tune into $(VENV); this takes some minutes the first time."
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing detox_tune and its test tools into $(VENV); this takes some minutes the first time."
	$(PIP_INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.installed
