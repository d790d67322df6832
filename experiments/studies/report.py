"""The former name of `experiments.deep_sea.studies.report`, as a command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('experiments.deep_sea.studies.report', run_name='__main__', alter_sys=True)
