"""The former name of `experiments.atari.stages`, as a command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('experiments.atari.stages', run_name='__main__', alter_sys=True)
