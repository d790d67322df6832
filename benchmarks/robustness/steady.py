"""A long run with frequent evaluations and checkpoints: what it holds must not grow."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

COLUMNS = ('minutes', 'resident_mb', 'open_files', 'threads', 'compilations', 'checkpoints_mb')
_ARGUMENTS = (
  *('--size=20', '--num_seeds=2', '--max_episodes=10000000', '--stop_when_solved=false', '--eval_period=1000'),
  *('--num_eval_episodes=20', '--checkpoint_period=5000', '--replay_capacity=20000', '--nofigures'),
)


# The binary, which notes in a file how many programs it has compiled.
_COUNTING = """
import pathlib, runpy, sys
import jax
counted, number = pathlib.Path(sys.argv.pop(1)), 0
def count(event, duration, **_):
  global number
  if event.endswith('backend_compile_duration'):
    number += 1
    counted.write_text(str(number))
jax.monitoring.register_event_duration_secs_listener(count)
runpy.run_module('experiments.deep_sea', run_name='__main__', alter_sys=True)
"""


def look(pid: int, compilations: int, folder: pathlib.Path) -> dict[str, float]:
  """What a process holds now."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  number = lambda name: int(status.split(f'{name}:')[1].split()[0])
  saved = sum(path.stat().st_size for path in (folder / 'checkpoints').rglob('*') if path.is_file())
  return {
    'resident_mb': number('VmRSS') / 1024,
    'open_files': len(os.listdir(f'/proc/{pid}/fd')),
    'threads': number('Threads'),
    'compilations': compilations,
    'checkpoints_mb': saved / 2**20,
  }


def watch(folder: pathlib.Path, minutes: float, write: Callable[[dict[str, object]], None], every: float = 15.0) -> str:
  """Runs so long and looks every few seconds; says how much each number changed from the run's middle to its end.

  Args:
    folder: of the run.
    minutes: how long, from its first evaluation on.
    write: takes each row of `COLUMNS`.
    every: seconds between looks.
  """
  log, counted = folder.parent / 'steady.log', folder.parent / 'compilations'
  command = [sys.executable, '-c', _COUNTING, str(counted), *_ARGUMENTS, f'--output_dir={folder}']
  with log.open('w') as err:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
    try:
      while not (folder / 'results.csv').exists() or (folder / 'results.csv').read_text().count('\n') < 3:
        if process.poll() is not None:
          raise RuntimeError(log.read_text()[-500:])
        time.sleep(0.5)
      start, rows = time.monotonic(), []
      while time.monotonic() - start < 60 * minutes and process.poll() is None:
        rows.append(look(process.pid, int(counted.read_text()), folder))
        write({'minutes': f'{(time.monotonic() - start) / 60:.2f}', **{k: f'{v:.1f}' for k, v in rows[-1].items()}})
        time.sleep(every)
    finally:
      process.send_signal(signal.SIGTERM)
      process.wait(120)
  return summary(rows)


def summary(rows: list[dict[str, float]]) -> str:
  """The medians of the second and the last tenth, which is what has to agree."""
  tenth = max(1, len(rows) // 10)
  parts = []
  for name in COLUMNS[1:]:
    values = np.array([row[name] for row in rows])
    early, late = np.median(values[tenth : 2 * tenth]), np.median(values[-tenth:])
    parts.append(f'{name} {early:.0f} -> {late:.0f}')
  return ', '.join(parts)
