# Two commands do everything on a fresh machine with Python 3.11 or later: `make deep-sea` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: deep-sea atari bsuite study tabular test test-part test-long test-oldest bench docs clean

deep-sea: $(READY)  ## trains HyperAgent on DeepSea 20 with 10 seeds, prints a table, draws figures
	$(BIN)/python -m experiments.deep_sea --size=20 --num_seeds=10

atari: $(READY)  ## a short run on Pong: trains, evaluates and draws within 5 minutes
	$(BIN)/python -m experiments.atari --game=pong --preset=fast_cpu --num_seeds=2 --max_interactions=12000 \
	  --eval_period=4000 --num_eval_episodes=4 --num_final_episodes=8 --num_reference_episodes=2

BSUITE_SAMPLE = bandit/0,bandit_noise/8,catch/0,catch_scale/4,mountain_car/0,cartpole/0,deep_sea/0,discounting_chain/0,umbrella_length/4,memory_len/1
bsuite: $(READY)  ## ten of bsuite's 468 ids, 200 episodes each, with scores and report
	$(BIN)/python -m experiments.bsuite --bsuite_id=$(BSUITE_SAMPLE) --num_episodes=200

study: $(READY)  ## a small version of the whole DeepSea study
	$(BIN)/python -m experiments.deep_sea.studies --reduced --output_dir=runs/reduced_study
	$(BIN)/python -m experiments.deep_sea.studies.posterior_quality --reduced --output_dir=runs/reduced_study

tabular: $(READY)  ## a small version of the studies of the theory, within 3 minutes
	$(BIN)/python -m experiments.tabular --reduced --output_dir=runs/reduced_tabular \
	  --study=regret,index_dim,posterior,contraction,spreading,computation,bridge

test: $(READY)  ## checks style and types and runs the test suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-part: $(READY)  ## runs the suite without what takes long; with PYTHON and VENV, on another Python
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m "not slow and not long"

test-long: $(READY)  ## runs what takes too long for the suite, and what holds only as the binaries compile
	AS_BINARIES_COMPILE=1 $(BIN)/python -m pytest -m long

# The oldest release of every package that requirements.txt allows, which its lower bounds name. Not of ale-py, for
# which jaxlib must be newer (setup.py).
OLDEST = .venv-oldest
test-oldest: $(OLDEST)/.ready  ## runs that part, but for Atari, with the oldest packages that are allowed
	$(OLDEST)/bin/python -m pytest -n 2 --dist=worksteal -m "not slow and not long" --ignore-glob="*atari*" \
	  --ignore=tests/experiments/test_training.py \
	  tests/core tests/baselines tests/envs tests/experiments tests/tabular

bench: $(READY)  ## measures throughput, part by part
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.atari
	$(BIN)/python -m benchmarks.bsuite

docs: $(READY)  ## builds the documentation into build/docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

$(READY): requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install -qq --no-deps -e .
	touch $(READY)

$(OLDEST)/.ready: requirements.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	sed -nE 's/^([A-Za-z0-9-]+)>=([^,]+).*/\1==\2.*/p' requirements.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/constraints.txt gymnasium -e '.[experiments,bsuite,figures,test]'
	touch $(OLDEST)/.ready

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info
