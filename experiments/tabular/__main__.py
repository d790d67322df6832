"""Studies of the tabular theory: random MDPs, exact regret; a CSV table and a figure of each.

The sizes that are flags are those of `regret`, `tuning`, `index_dim` (random MDPs), `perturbation`, `computation` and,
but for what it varies, `scaling`; the other studies have their own, and take --num_mdps as their number of runs.

python -m experiments.tabular                                # all of them
python -m experiments.tabular --study=regret,posterior       # two
python -m experiments.tabular --reduced                      # a small version of each: minutes
"""

from experiments.tabular.binary import start

if __name__ == '__main__':
  start()
