"""Tables of the flags of all binaries, made from what defines them."""

import dataclasses
import importlib
import inspect
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from absl import flags as absl_flags

from experiments.atari.settings import TrainConfig
from experiments.atari.stages import StagesConfig
from experiments.bsuite.settings import BsuiteConfig
from experiments.common.runs import OutputConfig, RunConfig
from experiments.deep_sea.settings import DeepSeaConfig
from experiments.tabular.study import TabularConfig
from hyperagent_jax.baselines import SYSTEMS, RivalConfig
from hyperagent_jax.baselines.config import COMMON
from hyperagent_jax.config import HyperAgentConfig, bound_text
from hyperagent_jax.envs.atari import AtariConfig

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Binary(NamedTuple):
  """A binary that makes its flags by a function."""

  module: str  # where that function, `define_flags`, is
  settings: tuple[type, ...] = ()  # its own, but for the agent's


BINARIES = {
  'experiments.deep_sea': Binary('experiments.deep_sea.binary', (DeepSeaConfig, RunConfig, OutputConfig)),
  'experiments.atari': Binary('experiments.atari.binary', (TrainConfig, AtariConfig, RunConfig, OutputConfig)),
  'experiments.bsuite': Binary('experiments.bsuite.binary', (BsuiteConfig, OutputConfig)),
  'experiments.tabular': Binary('experiments.tabular.binary', (TabularConfig,)),
  'experiments.deep_sea.studies': Binary('experiments.deep_sea.studies.binary'),
  'experiments.deep_sea.studies.posterior_quality': Binary('experiments.deep_sea.studies.posterior_quality'),
  'experiments.atari.stages': Binary('experiments.atari.stages', (StagesConfig,)),
  'experiments.bsuite.report': Binary('experiments.bsuite.report'),
}
TRAINING = {'DeepSea': 'experiments.deep_sea', 'Atari': 'experiments.atari', 'bsuite': 'experiments.bsuite'}
Flags = dict[str, absl_flags.Flag]


def flags_of(binary: str) -> Flags:
  """A binary's flags by name."""
  values = absl_flags.FlagValues()
  importlib.import_module(BINARIES[binary].module).define_flags(values)
  return {name: values[name] for name in values}


def trained() -> dict[str, Flags]:
  """The flags of the binaries that train agents, by the name of a column."""
  return {column: flags_of(binary) for column, binary in TRAINING.items()}


def all_flag_names() -> set[str]:
  """The names of all flags of all binaries, benchmarks and scripts included."""
  names = {name for binary in BINARIES for name in flags_of(binary)}
  for folder in ('benchmarks', 'experiments'):
    for path in (ROOT / folder).rglob('*.py'):  # those that define their flags where they are imported
      names |= set(re.findall(r"\bDEFINE_\w+\(\s*'(\w+)'", path.read_text()))
  return names


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
  """A Markdown table."""
  cells = [list(header), *map(list, rows)]
  lines = ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in cells]
  lines.insert(1, '|---' * len(cells[0]) + '|')
  return '\n'.join(lines) + '\n'


def shown(flag: absl_flags.Flag) -> str:
  """A flag's default as it is written on a command line."""
  default = flag.default
  if isinstance(default, bool):
    return 'yes' if default else 'no'
  if isinstance(default, list):
    return ','.join(default) or 'none'
  if isinstance(default, float):
    return f'{default:g}'
  return str(default) if default not in ('', None) else 'none'


def explained(flag: absl_flags.Flag, field: dataclasses.Field | None = None) -> str:
  """A flag's help, its choices and its limits."""
  text = re.sub(r'^<.*?>: ', '', flag.help)  # absl begins an enumeration's help with its values
  return text + limits(field)


def limits(field: dataclasses.Field | None) -> str:
  """What a number may be, as its field declares it."""
  low, high = (field.metadata.get(k) for k in ('low', 'high')) if field else (None, None)
  if low is not None and high is not None:
    return f' From {bound_text(low)} to {bound_text(high)}.'
  if low is not None:
    return f' At least {bound_text(low)}.'
  return '' if high is None else f' At most {bound_text(high)}.'


def fields_by_name(*classes: type) -> dict[str, dataclasses.Field]:
  """The fields of several classes of settings."""
  return {f.name: f for cls in classes for f in dataclasses.fields(cls)}


def sections(cls: type) -> Iterator[tuple[str, str]]:
  """(section, field) of a class of settings, whose sections are the comments between its fields."""
  section = ''
  for line in inspect.getsource(cls).splitlines():
    if comment := re.fullmatch(r'  # (.*)\.', line):
      section = comment[1]
    elif field := re.match(r'  (\w+): ', line):
      yield section, field[1]


def row_of(name: str, field: dataclasses.Field, of: dict[str, Flags]) -> list[str]:
  """A flag that several binaries have: its default in each, and what it is; empty where none has it."""
  found = [flags[name] for flags in of.values() if name in flags]
  if not found:
    return []
  defaults = (shown(flags[name]) if name in flags else '' for flags in of.values())
  return [f'`--{name}`', *defaults, explained(found[0], field)]


def agent_tables() -> str:
  """HyperAgent's settings, section by section, with each binary's default."""
  of, fields = trained(), fields_by_name(HyperAgentConfig)
  by_section: dict[str, list[list[str]]] = {}
  for section, name in sections(HyperAgentConfig):
    by_section.setdefault(section, []).append(row_of(name, fields[name], of))
  header = ('flag', *of, 'what it is')
  return '\n'.join(f'### {section}\n\n{table(header, filter(None, rows))}' for section, rows in by_section.items())


def rival_table() -> str:
  """The settings that only rivals have, and which of them read each."""
  own = {f.name for f in dataclasses.fields(RivalConfig)} - {f.name for f in dataclasses.fields(HyperAgentConfig)}
  flags, fields = flags_of('experiments.deep_sea'), fields_by_name(RivalConfig)
  rows = []
  for name in (n for n in fields if n in own):
    readers = [f'`{agent}`' for agent, system in SYSTEMS.items() if name in system.fields]
    text = explained(flags[name], fields[name])
    rows.append((f'`--{name}`', shown(flags[name]), text, ', '.join(readers)))
  return table(('flag', 'default', 'what it is', 'read by'), rows)


def reading_table() -> str:
  """What each rival reads beside what all of them do."""
  names = lambda found: ', '.join(f'`{name}`' for name in sorted(found))
  rows = [(f'`{agent}`', names(system.fields - COMMON)) for agent, system in SYSTEMS.items() if agent != 'hyperagent']
  return f'Every agent reads {names(COMMON)}.\n\n' + table(('agent', 'reads too'), rows)


def binary_table(binary: str, skip: Iterable[str] = ()) -> str:
  """A binary's flags but for those of agents, with defaults and limits."""
  fields = fields_by_name(*BINARIES[binary].settings)
  flags = {name: flag for name, flag in flags_of(binary).items() if name not in set(skip)}
  in_order = sorted(flags, key=lambda name: list(fields).index(name) if name in fields else -1)
  rows = [(f'`--{n}`', shown(flags[n]), explained(flags[n], fields.get(n))) for n in in_order]
  return table(('flag', 'default', 'what it is'), rows)


def _shared() -> set[str]:
  """The flags of a run and its outputs, which the binaries that train share."""
  return {f.name for cls in (RunConfig, OutputConfig) for f in dataclasses.fields(cls)}


def run_table() -> str:
  """The flags of a run and its outputs with each training binary's default."""
  of, fields = trained(), fields_by_name(RunConfig, OutputConfig)
  return table(('flag', *of, 'what it is'), (row_of(name, field, of) for name, field in fields.items()))


def _tables() -> dict[str, Callable[[], str]]:
  agents = {f.name for f in dataclasses.fields(RivalConfig)}
  one = lambda binary, skip: lambda: binary_table(binary, skip)
  tables: dict[str, Callable[[], str]] = {
    'flags_agent': agent_tables,
    'flags_rivals': rival_table,
    'flags_read': reading_table,
    'flags_run': run_table,
  }
  for binary in BINARIES:
    skip = agents | _shared() if binary in TRAINING.values() else set()
    tables[f'flags_{binary.removeprefix("experiments.").replace(".", "_")}'] = one(binary, skip)
  return tables


def write(folder: pathlib.Path) -> None:
  """Writes each table into a file that a page includes."""
  folder.mkdir(exist_ok=True)
  for name, make in _tables().items():
    (folder / f'{name}.md').write_text(make())
