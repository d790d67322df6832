"""Studies of the tabular theory: random MDPs, exact regret; a CSV table and a figure of each.

The sizes that are flags are those of `regret`, `tuning`, `index_dim` (random MDPs), `perturbation`, `computation` and,
but for what it varies, `scaling`; the other studies have their own, and take --num_mdps as their number of runs.

python -m experiments.tabular                                # all of them
python -m experiments.tabular --study=regret,posterior       # two
python -m experiments.tabular --reduced                      # a small version of each: minutes
"""

import pathlib
import time
from collections.abc import Sequence

from absl import flags

from experiments.common import compilation
from experiments.common.cli import start_main
from experiments.common.devices import available_memory, make_devices
from experiments.common.files import owned
from experiments.common.plotting import save_figure
from experiments.common.progress import format_duration
from experiments.common.runs import folder_named
from experiments.common.settings import config_from_flags, define_config_flags
from experiments.tabular.registry import STUDIES
from experiments.tabular.study import REDUCED, TabularConfig, read_rows, write_rows
from hyperagent_jax import config
from hyperagent_jax.config import ConfigError
from hyperagent_jax.seeds import num_cores


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of this binary."""
  flags.DEFINE_list('study', ['all'], f'Which: all, or of {", ".join(STUDIES)}.', flag_values=flag_values)
  flags.DEFINE_string('output_dir', 'runs/tabular', 'Folder of tables and figures.', flag_values=flag_values)
  flags.DEFINE_bool('reduced', False, 'Fewer MDPs, episodes and settings.', flag_values=flag_values)
  flags.DEFINE_bool('redraw', False, 'Only draw again from the tables in --output_dir.', flag_values=flag_values)
  define_config_flags(TabularConfig(), flag_values)
  compilation.define_flag(flag_values)


def studies_of(names: list[str]) -> list[str]:
  """The studies that are asked for, each once.

  Raises:
    ConfigError: if there is none of a name.
  """
  for name in names:
    if name not in ('all', *STUDIES):
      raise ConfigError(f'--study={name}: must be all, or of {", ".join(STUDIES)}')
  return [name for name in STUDIES if name in names or 'all' in names]


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> TabularConfig:
  """The flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  settings = config_from_flags(REDUCED if flag_values.reduced else TabularConfig(), flag_values)
  config.validate_fields(settings)
  return settings


def check_memory(s: TabularConfig) -> None:
  """Refuses, before anything is made, what would not fit.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  # Of every run: transitions and their estimate, an agent's factors of M components, and the regret of each episode.
  cells = s.horizon * s.num_states * s.num_actions
  needed = 8 * s.num_mdps * (cells * (2 * s.num_states + s.index_dim) + s.num_episodes)
  available = available_memory()
  if needed > available:
    sizes = f'--num_mdps={s.num_mdps} --num_states={s.num_states} --num_actions={s.num_actions} --horizon={s.horizon}'
    raise ConfigError(
      f'{sizes} --index_dim={s.index_dim} --num_episodes={s.num_episodes}: take about {needed / 1e9:,.1f} GB of memory '
      f'and {available / 1e9:,.1f} GB are free'
    )


def main() -> None:
  """Runs the studies asked for, one after the other."""
  values = flags.FLAGS
  names, settings = studies_of(values.study), read_settings()
  if not names:
    raise ConfigError(f'--study=: must be all, or of {", ".join(STUDIES)}')
  folder = folder_named(values.output_dir)
  compilation.keep_compiled(values.compilation_cache_dir)
  make_devices(0, num_cores())
  check_memory(settings)
  with owned(folder):
    run_studies(names, settings, folder, values.reduced, values.redraw)


def run_studies(
  names: Sequence[str], settings: TabularConfig, folder: pathlib.Path, reduced: bool, redraw: bool
) -> None:
  """Runs studies, or only draws them again from their tables, one after the other."""
  for name in names:
    study, table = STUDIES[name], folder / f'{name}.csv'
    print(f'{name}: {study.title}', flush=True)
    start = time.monotonic()
    if not redraw:
      write_rows(table, study.columns, study.run(settings, reduced))
    try:
      rows = read_rows(table, study.columns)  # what is drawn and told is what is in the file
    except ValueError as e:
      raise ConfigError(str(e)) from None
    print(study.tell(rows))
    save_figure(str(folder / f'{name}.png'), study.draw(rows))
    print(f'{table} and {name}.png  {format_duration(time.monotonic() - start)}\n', flush=True)


def start(argv: Sequence[str] | None = None) -> None:
  """Runs the binary with the flags of the command line, or of `argv` after the program's name; ends in SystemExit."""
  start_main(main, 'tabular', define_flags, argv)
