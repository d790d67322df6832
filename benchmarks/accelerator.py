"""What an accelerator is asked, in one call: its rates, updates, whole programs on Atari and DeepSea, learning.

    python -m benchmarks.accelerator --minutes=8 --output_dir=runs/accelerator [--reduced] [--parts=facts,updates]

Each part is a process of its own with a share of the time, so that one that fails, hangs or takes all memory costs its
own rows only. Every row is in accelerator.csv as soon as it is known. The exit status is 1 if anything failed.
`--reduced` does all of it at tiny sizes, on a CPU within three minutes.
"""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from benchmarks import accelerator_parts, accelerator_programs, timing
from benchmarks.accelerator_rows import ERROR, FILE, Session, read

# A part of (session) -> number of failures, and its share of the time; what one leaves goes to those after it.
PARTS: dict[str, tuple[Callable[[Session], int], float]] = {
  'facts': (accelerator_parts.facts, 0.12),
  'atari': (accelerator_programs.whole_atari, 0.22),
  'groups': (accelerator_programs.groups, 0.14),
  'deep_sea': (accelerator_programs.whole_deep_sea, 0.12),
  'updates': (accelerator_parts.updates, 0.14),
  'graphs': (accelerator_parts.graphs, 0.06),
  'learning': (accelerator_programs.learning, 0.34),
}
# Not most of the card beforehand: a part may start processes of its own.
_ENVIRONMENT = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
# As in the tests: compiling is most of the work where sizes are tiny, and LLVM's optimisations most of compiling.
_REDUCED_FLAGS = ' --xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false'
_GRACE = 0.25  # of its share that a part may take beyond it, for the case under way, before it is killed


def run_part(name: str, folder: pathlib.Path, seconds: float, reduced: bool, run: str = '') -> int:
  """Runs a part in this process; the number of failures."""
  session = Session(name, folder, time.monotonic() + seconds, reduced, timing.hardware(), run)
  try:
    return PARTS[name][0](session)
  except Exception as e:  # of what comes before its cases
    session.fail(name, e)
    return 1


def run_alone(command: Sequence[str], seconds: float, environment: dict[str, str]) -> str:
  """Runs a command with all that it starts; '' if it ended well within so many seconds, else what happened."""
  print(shlex.join(command), flush=True)
  process = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
  try:
    status = process.wait(seconds)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f'killed after {seconds:.0f} s'
  return '' if status == 0 else f'exit status {status}'


def run_parts(names: Sequence[str], start: Callable[[str, float], str], seconds: float) -> dict[str, str]:
  """Starts the parts one after the other; what went wrong in which.

  Args:
    names: of parts.
    start: name, seconds -> '' or what happened.
    seconds: for all parts.
  """
  deadline, wrong = time.monotonic() + seconds, {}
  for i, name in enumerate(names):
    shares = [PARTS[x][1] for x in names[i:]]
    share = max(0.0, deadline - time.monotonic()) * shares[0] / sum(shares)
    what = start(name, share)
    if what:
      wrong[name] = what
  return wrong


def main(argv: list[str]) -> None:
  """Runs the parts, or one of them."""
  del argv
  logging.set_verbosity(logging.ERROR)  # JAX reports platforms that it does not find
  folder, reduced = pathlib.Path(flags.FLAGS.output_dir), flags.FLAGS.reduced
  unknown = [name for name in flags.FLAGS.parts if name not in PARTS]
  if unknown:
    sys.exit(f'accelerator: --parts={",".join(flags.FLAGS.parts)}: no part {unknown[0]}; there are {", ".join(PARTS)}')
  if flags.FLAGS.alone:
    sys.exit(1 if run_part(flags.FLAGS.alone, folder, 60 * flags.FLAGS.minutes, reduced, flags.FLAGS.run) else 0)

  def start(name: str, seconds: float) -> str:
    command = [sys.executable, '-m', 'benchmarks.accelerator', f'--alone={name}', f'--minutes={seconds / 60:.4f}']
    command += [f'--run={flags.FLAGS.run}', f'--output_dir={folder}', *(['--reduced'] if reduced else [])]
    environment = dict(_ENVIRONMENT)
    if reduced:
      environment['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + _REDUCED_FLAGS
    what = run_alone(command, seconds * (1 + _GRACE) + 20, environment)
    if what:  # this process has not looked for a device, which it would hold
      hardware = next((row['hardware'] for row in reversed(read(folder / FILE)) if row['hardware']), '')
      Session(name, folder, 0.0, reduced, hardware, flags.FLAGS.run).write(name, '', ERROR, note=what)
    return what

  wrong = run_parts(flags.FLAGS.parts or list(PARTS), start, 60 * flags.FLAGS.minutes)
  print(f'\n{folder / FILE}')
  for name, what in wrong.items():
    print(f'accelerator: part {name}: {what}', file=sys.stderr)
  sys.exit(1 if wrong else 0)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of this benchmark; not at import, or they would be in the way of a binary's."""
  minutes, folder = 'How long all parts may take together.', 'Folder of accelerator.csv, to which rows are added.'
  flags.DEFINE_float('minutes', 8.0, minutes, flag_values=flag_values)
  flags.DEFINE_string('output_dir', 'runs/accelerator', folder, flag_values=flag_values)
  reduced = 'Tiny sizes, to see on a CPU that everything works.'
  flags.DEFINE_bool('reduced', False, reduced, flag_values=flag_values)
  flags.DEFINE_list('parts', [], 'Only these parts, in this order.', flag_values=flag_values)
  run = 'A name of this run in its rows, where the file holds several.'
  flags.DEFINE_string('run', '', run, flag_values=flag_values)
  alone = 'Used by the program itself: run this part in this process.'
  flags.DEFINE_string('alone', '', alone, flag_values=flag_values)


if __name__ == '__main__':
  define_flags()
  app.run(main)
