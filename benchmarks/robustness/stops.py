"""SIGTERM at a random moment of a run: how long until the process has ended, and whether it saved."""

import pathlib
import random
import signal
import time

from benchmarks.robustness.commands import ATARI, BSUITE, DEEP_SEA, Process, call, complaint, last_lines

COLUMNS = ('kind', 'trial', 'asked_after', 'seconds', 'status', 'outcome', 'text')
# Long enough to be asked anywhere: while it imports, compiles, trains, evaluates, saves.
RUNS = {
  'deep_sea': ('experiments.deep_sea', (*DEEP_SEA, '--size=20', '--max_episodes=100000', '--eval_period=20000')),
  'bsuite': ('experiments.bsuite', (*BSUITE, '--bsuite_id=cartpole,cartpole_noise', '--num_episodes=1000')),
  'atari': (
    'experiments.atari',
    (*ATARI, '--max_interactions=20000', '--eval_period=2000', '--max_frames=108000', '--checkpoint_period=2000'),
  ),
}
LONGEST = 40.0  # seconds into a run at which it is asked


def trial(name: str, folder: pathlib.Path, rng: random.Random) -> dict[str, object]:
  """Asks a run to stop; its row."""
  module, arguments = RUNS[name]
  after = rng.uniform(0.5, LONGEST)
  process = Process(module, (*arguments, f'--output_dir={folder}'), folder.parent)
  if process.wait(after) is None:
    process.kill(signal.SIGTERM)
  asked = time.monotonic()
  outcome = process.outcome(120.0)
  seconds = time.monotonic() - asked
  saved = any(folder.glob('checkpoints/*/*.json'))
  what = complaint(outcome) if 0 <= outcome.status else ''
  # Before it listens it is ended by the signal itself.
  if not what and outcome.status in (-signal.SIGTERM, 128 + signal.SIGTERM):
    what = 'stopped' if saved else 'ended before there was anything to save'
  text = (last_lines(outcome) or [''])[-1].replace(str(folder), '.')[:200]
  times = {'asked_after': f'{after:.1f}', 'seconds': f'{seconds:.2f}'}
  return {'kind': name, **times, 'status': outcome.status, 'outcome': what or 'ran', 'text': text}


def compile_first(name: str, folder: pathlib.Path) -> None:
  """Fills the cache of compiled programs, so that moments fall on everything else too."""
  module, arguments = RUNS[name]
  call(module, (*arguments, f'--output_dir={folder}', '--max_minutes=0.2'), folder.parent, limit=180.0)
