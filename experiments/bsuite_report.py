"""The former name of `experiments.bsuite.report`, as a command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('experiments.bsuite.report', run_name='__main__', alter_sys=True)
