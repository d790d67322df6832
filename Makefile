# Two commands do everything on a fresh machine with Python 3.11 or later: `make deep-sea` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: deep-sea test lint bench clean

deep-sea: $(READY)  ## trains HyperAgent on DeepSea 20 with 10 seeds, prints a table, draws figures
	$(BIN)/python -m experiments.deep_sea --size=20 --num_seeds=10

test: $(READY)  ## checks the style and runs the test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist=worksteal

bench: $(READY)  ## measures throughput, part by part
	$(BIN)/python -m benchmarks.throughput

$(READY): requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install -qq --no-deps -e .
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
