"""The whole DeepSea study, or part of it: runs what is missing, writes tables and draws figures.

    python -m experiments.deep_sea.studies --output_dir=runs/studies            # all of it: hours
    python -m experiments.deep_sea.studies --study=index_dim,sigma              # two figures
    python -m experiments.deep_sea.studies --reduced                            # a small version of all: minutes

The same command goes on where the last one stopped.
"""

from experiments.deep_sea.studies.binary import start

if __name__ == '__main__':
  start()
