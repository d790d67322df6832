"""The former name of `experiments.deep_sea.studies.posterior_quality`, as a command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('experiments.deep_sea.studies.posterior_quality', run_name='__main__', alter_sys=True)
