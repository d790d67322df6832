"""What a study is and how it is run: settings of one binary, a folder for each run, one table and one figure.

A run's folder is named after its flags, so that studies which share a setting share the run, and a run that was
interrupted goes on where it stopped.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from experiments.common.errors import OUT_OF_TIME, Stopped
from experiments.common.settings import config_differences
from experiments.common.tables import read_table, write_table
from experiments.deep_sea.settings import define_flags, read_settings, to_dict
from hyperagent_jax.config import ConfigError

BINARY = 'experiments.deep_sea'
SUMMARY = 'summary.csv'  # what the binary writes when all its seeds are done
# The columns of a study's table: where a run belongs in the figure, what came out for one seed, and how it was run.
COLUMNS = (
  *('study', 'series', 'x', 'agent', 'size', 'seed'),
  *('solved', 'episodes', 'interactions', 'max_episodes', 'seconds', 'steps_per_second', 'parameters', 'flags'),
)


@dataclasses.dataclass(frozen=True)
class Setting:
  """One run: its place in the figure, and the flags that differ from the binary's defaults."""

  series: str  # name in the legend
  x: float | str  # a number, or a category
  flags: Mapping[str, Any]  # `size` among them

  @property
  def arguments(self) -> list[str]:
    """The flags as words of a command, in alphabetical order."""
    return [_word(name, value) for name, value in sorted(self.flags.items())]

  @property
  def run_name(self) -> str:
    """The same for the same flags, whatever the study."""
    return ','.join(word.removeprefix('--') for word in self.arguments)


Series = Mapping[str, Mapping[str, Any]]  # name in the legend -> flags


@dataclasses.dataclass(frozen=True)
class Study:
  """A figure."""

  name: str
  title: str
  x_label: str
  settings: tuple[Setting, ...]
  reduced: tuple[Setting, ...]  # the same in a few minutes
  y: str = 'episodes'  # the column that is drawn
  log_x: bool = False
  log_y: bool = True


def _word(name: str, value: Any) -> str:
  if isinstance(value, bool):
    return f'--{name}' if value else f'--no{name}'
  return f'--{name}={value}'


# The setting in which one thing is varied, and the same in seconds.
ABLATION = {'size': 20, 'num_seeds': 4, 'max_episodes': 2_000}
REDUCED = {'size': 10, 'num_seeds': 2, 'max_episodes': 500}


def without_size(flags: Mapping[str, Any]) -> dict[str, Any]:
  """Flags for a study whose x axis is the size."""
  return {name: value for name, value in flags.items() if name != 'size'}


def grid(series: Series, x_flag: str, xs: Sequence[Any], **common: Any) -> tuple[Setting, ...]:
  """A setting for every series (name -> its flags) at every value of a flag."""
  return tuple(Setting(name, x, {**common, **flags, x_flag: x}) for name, flags in series.items() for x in xs)


def command(setting: Setting, folder: pathlib.Path) -> list[str]:
  """The command of a run, to begin it or to go on with it."""
  output = [f'--output_dir={folder}', '--nofigures', '--notensorboard', '--resume=auto']
  return [sys.executable, '-m', BINARY, *setting.arguments, *output]


def check_settings(setting: Setting, folder: pathlib.Path) -> None:
  """Refuses a finished run whose settings are not those that its flags now mean, because a preset has changed since.

  Raises:
    ConfigError: naming what differs.
  """
  values = flags.FlagValues()
  define_flags(values)
  values([BINARY, *setting.arguments])
  agent, run, _, env = read_settings(values)
  made_with = json.loads((folder / 'config.json').read_text())
  made_with.pop('versions', None)
  changed = config_differences(made_with, json.loads(json.dumps(to_dict(agent, run, env))))
  if changed:
    raise ConfigError(f'{folder}: was made with other settings: {"; ".join(changed)}; delete it to run it again')


def run_setting(setting: Setting, folder: pathlib.Path, deadline: float) -> None:
  """Runs a setting to its end, unless that has been done.

  Args:
    setting: the setting.
    folder: of the run.
    deadline: monotonic time at which to stop with a checkpoint.

  Raises:
    ConfigError: if the run fails, with its last line, or was made with other settings.
    Stopped: if the time is over.
  """
  if (folder / SUMMARY).exists():
    check_settings(setting, folder)
    return
  words = command(setting, folder)
  if deadline < float('inf'):
    words.append(f'--max_minutes={max(deadline - time.monotonic(), 1.0) / 60:.2f}')
  done = subprocess.run(words, capture_output=True, text=True, check=False)
  if done.returncode == OUT_OF_TIME:
    raise Stopped(OUT_OF_TIME, f'out of time in {setting.run_name}; the same command goes on')
  if done.returncode:
    lines = (done.stderr or done.stdout).strip().splitlines() or ['no output']
    raise ConfigError(f'{" ".join(words[1:])}: exit status {done.returncode}: {lines[-1]}')


def rows_of(study: Study, setting: Setting, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """A finished run's lines of the study's table."""
  place = {'study': study.name, 'series': setting.series, 'x': setting.x, 'flags': ' '.join(setting.arguments)}
  for row in read_table(str(folder / SUMMARY), [c for c in COLUMNS if c not in place]):
    yield {**row, **place}


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes a study's table, whole or not at all."""
  write_table(path, COLUMNS, ([row.get(name, '') for name in COLUMNS] for row in rows))


def run_study(study: Study, folder: pathlib.Path, reduced: bool, deadline: float = float('inf')) -> pathlib.Path:
  """Runs what is missing of a study and writes its table, anew after each run, to FOLDER/NAME.csv.

  Raises:
    ConfigError, Stopped: see `run_setting`.
  """
  settings = study.reduced if reduced else study.settings
  table, rows = folder / f'{study.name}.csv', []
  for number, setting in enumerate(settings, 1):
    run = folder / 'runs' / setting.run_name
    start = time.monotonic()
    run_setting(setting, run, deadline)
    new = list(rows_of(study, setting, run))
    rows += new
    write_rows(table, rows)
    print(
      f'{study.name} {number}/{len(settings)}  {describe(setting, new)}  {time.monotonic() - start:.0f}s', flush=True
    )
  return table


def describe(setting: Setting, rows: Sequence[Mapping[str, Any]]) -> str:
  """A run in one line."""
  solved = [int(row['episodes']) for row in rows if row['solved'] == '1']
  mean = f'{sum(solved) / len(solved):,.0f} episodes' if solved else f'within {int(rows[0]["max_episodes"]):,} episodes'
  return f'{setting.series}, {setting.x}: {len(solved)}/{len(rows)} seeds solved, {mean}'
