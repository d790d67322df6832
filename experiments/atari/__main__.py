"""HyperAgent on Atari: trains, evaluates, prints a table beside published scores, draws curves and a game.

    python -m experiments.atari --game=pong --preset=fast_cpu --num_seeds=2

The protocol is the paper's (B.1): every 20,000 interactions 10 whole games, and in the end 200 games with the best
parameters of each seed. --game also takes several games and the suites suite26, suite29, suite55 and hard8.
"""

from experiments.atari.binary import start

if __name__ == '__main__':
  start()
