# Every target sets itself up from a fresh clone: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch from the default index is a build for NVIDIA GPUs on Linux; either kind passes the tests.
TORCH ?= torch==2.13.0

.PHONY: demo test lint format train bench demo-bundle clean

demo: $(VENV)/.runtime
	$(BIN)/geotag demo

# Several processes, of one thread each: threads of several would wait for each other. Each takes
# two gigabytes.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: $(VENV)/.dev
	$(BIN)/python -m train.fit

# Train the demo model anew and put it into the package (20 to 30 minutes on two cores).
demo-bundle: $(VENV)/.dev
	rm -rf runs/demo-bundle
	$(BIN)/python -m train.fit --preset demo --out runs/demo-bundle
	$(BIN)/geotag export --checkpoint runs/demo-bundle --out geotag/demo_bundle --name demo --overwrite

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/scan.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage geotag-demo
