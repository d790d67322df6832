"""Odd values of every flag of every binary: refused in one line, or taken and used."""

import importlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from absl import flags

from benchmarks.robustness.commands import ATARI, BSUITE, DEEP_SEA, TABULAR, Outcome, call, complaint, last_lines

COLUMNS = ('binary', 'arguments', 'outcome', 'status', 'seconds', 'text')
_INTEGERS = (
  '-1',
  '0',
  '1000000000',
  '1000000000000',
  '100000000000000000000',
  '1' * 60,
  '',
  'x',
  '1.5',
  '\u0663',
  'nan',
)
_NUMBERS = ('-1', '0', 'nan', 'inf', '1e-320', '1e300', '', 'x', '\u0663')
_WORDS = ('', 'x', ' ', 'a,b', '-1')
_LISTS = ('', '0', '-1', '200000,200000', '1000000000000', 'x,1', '1.5', '\u0663', ',')
_NOT_TRIED = {'help', 'helpfull', 'helpshort', 'helpxml', '?'}


class Binary(NamedTuple):
  """A command, and its arguments for a run that takes seconds."""

  module: str
  arguments: tuple[str, ...]


BINARIES = {
  'deep_sea': Binary('experiments.deep_sea', (*DEEP_SEA, '--size=4')),
  'atari': Binary('experiments.atari', (*ATARI, '--game=pong')),
  'bsuite': Binary('experiments.bsuite', (*BSUITE, '--bsuite_id=catch/0', '--num_episodes=20')),
  'tabular': Binary('experiments.tabular', TABULAR),
  'studies': Binary('experiments.deep_sea.studies', ('--study=sigma', '--reduced', '--max_minutes=0.0001')),
  'posterior_quality': Binary('experiments.deep_sea.studies.posterior_quality', ('--reduced', '--size=6')),
  'bsuite_report': Binary('experiments.bsuite.report', ()),
  'atari_stages': Binary('experiments.atari.stages', ('--minutes=0.1', '--arguments=--nosuchflag')),
}
# What goes wrong by more than one flag, or by none.
OTHERS = {
  'deep_sea': (
    *(('--size=4', '--size'), ('--size=4', 'words'), ('--nosuchflag',), ('--sizes=4',), ('--resume',)),
    *(
      ('--resume', '--output_dir=nowhere'),
      ('--output_dir=/proc/x',),
      ('--output_dir=a\0b',),
      ('--output_dir=~no_such_user/x',),
    ),
    *(('--agent=ddqn', '--index_dim=3'), ('--first_seed=4294967295', '--num_seeds=2'), ('--num_devices=100',)),
    *(('--hidden_sizes=65536,65536',), ('--hidden_sizes=30000,30000,30000',), ('--num_seeds=10000', '--size=1000')),
    *(('--flagfile=binary',), ('--flagfile=nowhere',), ('--batch_size=1048576', '--hidden_sizes=65536')),
    *(('--update_ratio=1e-9',), ('--update_ratio=0.3',), ('--index_dim=4096', '--hidden_sizes=65536')),
    *(('--seed_axis=vmap', '--num_seeds=10000', '--replay_capacity=536870911', '--max_episodes=10000000'),),
  ),
  'atari': (('--game=pnog',), ('--game=pong,pong',), ('--game=',), ('--torso=deep_sea',), ('--max_frames=1',)),
  'bsuite': (
    ('--bsuite_id=cath/0',),
    ('--bsuite_id=catch/99',),
    ('--bsuite_id=',),
    ('--frame_stack=4', '--bsuite_id=deep_sea/0'),
  ),
  'tabular': (
    ('--num_states=10000', '--num_actions=10000'),
    ('--study=',),
    ('--study=x',),
    ('--redraw', '--output_dir=nowhere'),
  ),
  'studies': (('--study=',), ('--study=x',), ('--max_minutes=nan',)),
  'atari_stages': (('--arguments="',), ('--games=pnog',), ('--long_game=x',), ('--throughput_seeds=0',)),
}


def values_for(flag: flags.Flag) -> tuple[str, ...]:
  """Odd values of a flag, by its kind."""
  kinds = {'bool': ('maybe', ''), 'int': _INTEGERS, 'float': _NUMBERS}
  if isinstance(flag.default, list):
    return _LISTS
  return kinds.get(flag.flag_type(), _WORDS)


def cases(binary: str, every: int = 1) -> Iterator[tuple[str, ...]]:
  """Arguments to try, one k-th of them."""
  number = 0
  yield from OTHERS.get(binary, ())
  for name, flag in sorted(_flags_of(binary).items()):
    for value in values_for(flag):
      number += 1
      if number % every == 0:
        yield (f'--{name}={value}',)


def _flags_of(binary: str) -> dict[str, flags.Flag]:
  """The flags that a binary defines."""
  values = flags.FlagValues()
  module = BINARIES[binary].module
  try:
    importlib.import_module(f'{module}.binary').define_flags(values)
  except ModuleNotFoundError:
    importlib.import_module(module).define_flags(values)
  return {name: values[name] for name in values if name not in _NOT_TRIED}


def outcome_of(outcome: Outcome) -> str:
  """In a word."""
  return complaint(outcome) or ('refused' if outcome.status == 1 else 'ran' if outcome.status == 0 else 'stopped')


def try_case(binary: str, arguments: tuple[str, ...], folder: pathlib.Path) -> dict[str, object]:
  """Runs a case; its row."""
  module, base = BINARIES[binary]
  (folder / 'binary').write_bytes(bytes(range(256)) * 4)
  given = {argument.partition('=')[0] for argument in arguments}
  where = () if {'--output_dir', '--resume'} & given else (f'--output_dir={folder / "run"}',)
  outcome = call(module, (*base, *where, *arguments), folder, limit=90.0)
  text = (last_lines(outcome) or [''])[-1] if outcome.status else ''
  return {
    'binary': binary,
    'arguments': ' '.join(arguments).replace('\0', '\\0'),
    'outcome': outcome_of(outcome),
    'status': outcome.status,
    'seconds': f'{outcome.seconds:.1f}',
    'text': text.replace(str(folder), '.')[:200],
  }
