"""HyperAgent, or a rival, on bsuite: all of it, a tag, an experiment or an id; writes bsuite's own CSV files.

    python -m experiments.bsuite --bsuite_id=SWEEP
    python -m experiments.bsuite --bsuite_id=cartpole_noise,deep_sea/0 --agent=ensemble_plus

Ids of one experiment run in one XLA program where their observations have one shape. As bsuite prescribes, what is
scored is training itself: so many episodes for each id, no separate evaluation.
"""

from experiments.bsuite.binary import start

if __name__ == '__main__':
  start()
