"""The whole DeepSea study, or part of it: runs what is missing, writes tables and draws figures.

    python -m experiments.deep_sea.studies --output_dir=runs/studies            # all of it: hours
    python -m experiments.deep_sea.studies --study=index_dim,sigma              # two figures
    python -m experiments.deep_sea.studies --reduced                            # a small version of all: minutes

The same command goes on where the last one stopped.
"""

import time

from absl import flags

from experiments.common import compilation
from experiments.common.cli import start_main
from experiments.common.files import owned
from experiments.common.runs import folder_named
from experiments.deep_sea.studies.figures import draw_study
from experiments.deep_sea.studies.registry import STUDIES
from experiments.deep_sea.studies.study import run_study
from hyperagent_jax.config import ConfigError


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of this binary."""
  flags.DEFINE_list('study', ['all'], f'Which: all, or of {", ".join(STUDIES)}.', flag_values=flag_values)
  flags.DEFINE_string('output_dir', 'runs/studies', 'Folder of tables, figures and runs.', flag_values=flag_values)
  flags.DEFINE_bool('reduced', False, 'Fewer settings, smaller sizes, fewer seeds.', flag_values=flag_values)
  compilation.define_flag(flag_values)
  flags.DEFINE_float('max_minutes', 0.0, 'Stop after so long, to go on later; 0: never.', flag_values=flag_values)


def main() -> None:
  """Runs the studies asked for, one after the other."""
  values = flags.FLAGS
  names = list(STUDIES) if values.study == ['all'] else values.study
  for name in names or ['']:
    if name not in STUDIES:
      raise ConfigError(f'--study={name}: must be all, or of {", ".join(STUDIES)}')
  if not 0 <= values.max_minutes <= 1e9:
    raise ConfigError(f'--max_minutes={values.max_minutes}: must be at least 0 and at most 1e+09')
  compilation.tell_children(values.compilation_cache_dir)
  deadline = time.monotonic() + 60 * values.max_minutes if values.max_minutes else float('inf')
  folder = folder_named(values.output_dir)
  with owned(folder):  # two studies at once would delete each other's young runs
    for name in names:
      study = STUDIES[name]
      table = run_study(study, folder, values.reduced, deadline)
      print(draw_study(study, table, str(folder / f'{name}.png')), flush=True)


def start() -> None:
  """Runs the binary with the flags of the command line."""
  start_main(main, 'studies', define_flags)
