"""Files of a stopped run that are cut, flipped, emptied or removed before it is gone on with: none is believed."""

import pathlib
import random
import shutil

from benchmarks.robustness.commands import call, complaint, last_lines
from benchmarks.robustness.kills import KINDS, Kind, left_over

COLUMNS = ('kind', 'trial', 'file', 'damage', 'outcome', 'seconds', 'text')
DAMAGES = ('cut', 'flipped', 'emptied', 'removed', 'grown')


def stopped_run(kind: Kind, folder: pathlib.Path, minutes: float) -> None:
  """A run that was asked to stop after so long, with checkpoints of what is done and what is under way."""
  arguments = (*kind.arguments, f'--output_dir={folder}', f'--max_minutes={minutes}')
  outcome = call(kind.module, arguments, folder.parent)
  if outcome.status not in (0, 75):
    raise RuntimeError(f'{kind.module} fails undisturbed: {outcome.err}')


def files_in(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """What may be damaged, by kind of file, so that each kind is damaged as often."""
  groups: dict[str, list[pathlib.Path]] = {}
  for path in sorted(folder.rglob('*')):
    if not path.is_file() or path.name == '.lock':
      continue
    inside = path.relative_to(folder).parts
    if inside[0] == 'checkpoints':
      name = 'manifest' if path.suffix == '.json' and len(inside) == 3 else 'arrays'
    elif inside[0] in ('posterior', 'tensorboard', 'best'):
      name = inside[0]
    else:
      name = 'log' if path.name.startswith('bsuite_id') else path.name
    groups.setdefault(name, []).append(path)
  return groups


def damage(path: pathlib.Path, how: str, rng: random.Random) -> None:
  """Damages a file."""
  data = path.read_bytes()
  if how == 'removed':
    path.unlink()
  elif how == 'emptied' or not data:
    path.write_bytes(b'')
  elif how == 'cut':
    path.write_bytes(data[: rng.randrange(len(data))])
  elif how == 'grown':
    path.write_bytes(data + rng.randbytes(rng.randint(1, 64)))
  else:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4))):
      changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(changed))


def trial(
  name: str, folder: pathlib.Path, stopped: pathlib.Path, whole: pathlib.Path, rng: random.Random
) -> dict[str, object]:
  """Damages one file of a copy of a stopped run and goes on with it."""
  kind = KINDS[name]
  shutil.copytree(stopped, folder)
  groups = files_in(folder)
  group = rng.choice(sorted(groups))
  path, how = rng.choice(groups[group]), rng.choice(DAMAGES)
  damage(path, how, rng)
  outcome = call(kind.module, (*kind.arguments, '--resume', f'--output_dir={folder}'), folder.parent)
  what = complaint(outcome)
  text = (last_lines(outcome) or [''])[-1] if outcome.status else ''
  if not what and outcome.status == 0:
    wrong = kind.compare(folder, whole) or left_over(folder).removesuffix('results.csv.changed')
    what, text = ('believed', wrong) if wrong else ('as undisturbed', '')
  elif not what:
    what = 'refused in a line'
  row = {'file': group, 'damage': how, 'outcome': what, 'seconds': f'{outcome.seconds:.1f}'}
  return {**row, 'text': text.replace(str(folder), '.')[:200]}
