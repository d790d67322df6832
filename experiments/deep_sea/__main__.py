"""HyperAgent on DeepSea: trains, prints a table, draws figures.

    python -m experiments.deep_sea --size=20 --num_seeds=10

Episodes to solve follow the paper's protocol (B.1): every 1,000 interactions 100 evaluation episodes are played, and a
seed is solved when all of them end in the treasure's corner.
"""

from experiments.deep_sea.binary import start

if __name__ == '__main__':
  start()
