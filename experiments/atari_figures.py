"""The former name of `experiments.atari.figures`, as a command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('experiments.atari.figures', run_name='__main__', alter_sys=True)
