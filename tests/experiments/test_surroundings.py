"""What is around a run: other runs, closed streams, a notebook's settings, signals, threads. None costs the run."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.common.console import say
from experiments.common.files import LOCK, owned, write_atomically
from experiments.common.progress import Progress
from experiments.common.runs import folder_named
from experiments.common.signals import Signals
from hyperagent_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  *('--size=5', '--num_seeds=1', '--max_episodes=40', '--stop_when_solved=false', '--eval_period=50'),
  *('--num_eval_episodes=3', '--checkpoint_period=50', '--batch_size=4', '--min_replay=16', '--replay_capacity=300'),
  *('--hidden_sizes=8', '--index_dim=2', '--nofigures', '--notensorboard'),
)


def command(folder, *arguments):
  return [sys.executable, '-m', 'experiments.deep_sea', *SMALL, f'--output_dir={folder}', *arguments]


def run(folder, *arguments, **environment):
  # As a user's: a folder for what is compiled, and nothing of this process's Matplotlib.
  return subprocess.run(
    command(folder, *arguments),
    cwd=ROOT,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def test_a_second_run_or_a_resumption_of_one_that_lives_is_refused_in_a_line(tmp_path):
  folder = tmp_path / 'run'
  with owned(folder):
    for arguments in ((), ('--resume',)):
      done = run(folder, *arguments)
      assert done.returncode == 1
      (line,) = done.stderr.strip().splitlines()
      assert f'--output_dir={folder}: another run is writing there (process {os.getpid()} on ' in line
    assert [path.name for path in folder.iterdir()] == [LOCK]  # nothing of theirs


def test_a_lock_dies_with_its_owner(tmp_path):
  script = f"""
import os, pathlib, signal
from experiments.common.files import owned
with owned(pathlib.Path({str(tmp_path)!r})):
  os.kill(os.getpid(), signal.SIGKILL)
"""
  assert subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=False).returncode == -signal.SIGKILL
  with owned(tmp_path):
    pass


def test_odd_settings_of_the_surroundings_and_closed_streams_do_not_matter(tmp_path):
  """A notebook's backend, 64 bits, no home, no standard output, standard error without room."""
  expected = run(tmp_path / 'expected')
  assert expected.returncode == 0, expected.stderr
  environment = {
    **os.environ,
    'MPLBACKEND': 'module://nowhere.to_be_found',
    'JAX_ENABLE_X64': '1',
    'HOME': '/nonexistent',
  }
  words = ['bash', '-c', 'exec "$@" >&- 2>/dev/full', 'bash', *command(tmp_path / 'run', '--figures')]
  done = subprocess.run(words, cwd=ROOT, env=environment, timeout=300, check=False)
  assert done.returncode == 0
  read = lambda name: [line.rsplit(',', 6)[0] for line in (tmp_path / name / 'results.csv').read_text().splitlines()]
  without_rate = lambda name: [[x for i, x in enumerate(line.split(',')) if i != 11] for line in read(name)]
  assert without_rate('run') == without_rate('expected')
  assert (tmp_path / 'run' / 'figure.png').stat().st_size > 1000


def test_a_binary_runs_twice_in_a_process_and_in_a_thread_and_leaves_nothing_behind(tmp_path):
  script = f"""
import signal, threading
from absl import flags
from experiments.deep_sea.binary import start
before = {{n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}}
names = set(flags.FLAGS)
def go(folder):
  try:
    start(['deep_sea', *{SMALL!r}, '--output_dir={tmp_path}/' + folder])
  except SystemExit as e:
    print(folder, e.code)
go('one')
go('one')  # is refused: it holds a run
go('two')
thread = threading.Thread(target=go, args=('three',))
thread.start(), thread.join()
assert before == {{n: signal.getsignal(n) for n in before}}, 'a handler is left'
assert set(flags.FLAGS) - names <= {{'help', 'helpshort', 'helpfull', 'helpxml', '?'}}, set(flags.FLAGS) - names
"""
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
  )
  assert done.returncode == 0, done.stderr
  assert 'one 0' in done.stdout or 'one None' in done.stdout
  assert 'already holds a run' in done.stdout
  texts = [(tmp_path / name / 'results.csv').read_text() for name in ('one', 'two', 'three')]
  strip = lambda text: [[x for i, x in enumerate(line.split(',')) if i != 11] for line in text.splitlines()]
  assert strip(texts[0]) == strip(texts[1]) == strip(texts[2])


def test_a_closed_terminal_saves_a_checkpoint(tmp_path):
  folder = tmp_path / 'run'
  with subprocess.Popen(
    command(folder, '--max_episodes=100000'), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
  ) as process:
    deadline = time.monotonic() + 120
    while not list(folder.glob('checkpoints/*/*.json')):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGHUP
  assert 'stopped by signal 1' in err.strip().splitlines()[-1]


def test_resume_auto_begins_and_goes_on_with_the_same_command(tmp_path):
  """Killed inside its first save: rows, half a checkpoint, no manifest."""
  whole, young = tmp_path / 'whole', tmp_path / 'young'
  done = run(whole, '--resume=auto')
  assert done.returncode == 0, done.stderr
  text = (whole / 'results.csv').read_text()
  young.mkdir()
  (young / 'config.json').write_bytes((whole / 'config.json').read_bytes())
  (young / 'results.csv').write_text(''.join(text.splitlines(True)[:2]) + 'half a ro')
  (young / 'checkpoints/size_5/000000000060').mkdir(parents=True)
  (young / 'checkpoints/size_5/000000000060/half').write_text('x')
  other = run(young, '--resume=auto', '--batch_size=8')
  assert other.returncode == 1 and 'batch_size: 4 -> 8' in other.stderr
  done = run(young, '--resume=auto')
  assert done.returncode == 0, done.stderr
  strip = lambda text: [[x for i, x in enumerate(line.split(',')) if i != 11] for line in text.splitlines()]
  assert strip((young / 'results.csv').read_text()) == strip(text)
  assert (young / 'results.csv.abandoned').read_text().endswith('half a ro')
  before = (young / 'results.csv').read_bytes()
  again = run(young, '--resume=auto')
  assert again.returncode == 0 and (young / 'results.csv').read_bytes() == before
  shutil.rmtree(young / 'checkpoints')
  refused = run(young, '--resume=auto')
  assert refused.returncode == 1 and 'has a summary.csv but no checkpoint' in refused.stderr
  assert (young / 'results.csv').read_bytes() == before
  word = run(young, '--resume=maybe')
  assert word.returncode == 1 and 'must be true, false or auto' in word.stderr


# --------------------------------------------------------------------------------------------------------- small pieces


class Full:
  """A stream without room."""

  def write(self, text):
    raise OSError(28, 'No space left on device')

  def flush(self):
    raise OSError(28, 'No space left on device')

  def isatty(self):
    return False


@pytest.mark.parametrize('stream', [Full(), None])
def test_what_cannot_be_said_is_not_said(monkeypatch, stream):
  monkeypatch.setattr(sys, 'stderr', stream)
  say('text\n')
  Progress(None, 0.0).show('text', final=True)


def test_signals_are_given_back_when_released_and_a_second_ctrl_c_stops_at_once(capsys):
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with Signals() as signals:
    assert signals.stop() is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.stop() == (128 + signal.SIGTERM, 'signal 15')
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(1)
    signals.release()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
  assert 'SIGTERM: stopping at the next opportunity, with a checkpoint' in capsys.readouterr().err


BUSY = """
import sys, time
import numpy as np
from experiments.common.signals import Signals
with Signals(grace_seconds=1.0) as signals:
  def work():
    print('at work', flush=True)
    while True:  # no Python for seconds at a time, as when XLA compiles
      np.linalg.svd(np.random.default_rng(0).normal(size=(2500, 2500)))
  if sys.argv[1] == 'nothing to save':
    with signals.nothing_to_save():
      work()
  if sys.argv[1] == 'saving':
    print('at work', flush=True)
    with signals.saving():
      time.sleep(2)
  work()
"""


@pytest.mark.parametrize(
  ('what', 'at_least', 'at_most'), [('nothing to save', 0.0, 1.0), ('something', 0.9, 5.0), ('saving', 2.5, 8.0)]
)
def test_a_process_that_does_not_come_to_an_end_is_ended_in_time(what, at_least, at_most):
  words = [sys.executable, '-c', BUSY, what]
  with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'at work\n'
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    process.wait(60)
    seconds = time.monotonic() - start
    assert process.returncode == 143
    assert (
      process.stderr.read().splitlines()[-1] == 'SIGTERM: ended at once; the latest checkpoint, if there is one, stands'
    )
  assert at_least <= seconds < at_most


def test_a_folder_of_ones_home_is_there_and_no_other_name_is_taken(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert folder_named('~/runs/x') == tmp_path / 'runs/x'
  for text in ('', '  ', 'a\0b', '~nobody_at_all/x'):
    with pytest.raises(ConfigError, match='--output_dir'):
      folder_named(text)


def test_a_write_without_room_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  path.write_bytes(b'old')

  def fsync(number):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fsync)
  with pytest.raises(OSError, match='No space left') as e:
    write_atomically(path, b'new')
  assert e.value.filename == str(path)
  assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.mark.parametrize('text', ['[]'])
def test_a_damaged_config_is_a_warning_since_checkpoints_have_the_settings_too(tmp_path, text):
  folder = tmp_path / 'run'
  assert run(folder, '--max_minutes=0.0001').returncode == 75
  (folder / 'config.json').write_text(text)
  (folder / 'checkpoints' / 'size_5' / 'notes.txt').write_text('mine')
  (folder / 'posterior' / 'size_5').mkdir(parents=True, exist_ok=True)
  (folder / 'posterior' / 'size_5' / 'mine.npz').write_text('mine')
  done = run(folder, '--resume')
  assert done.returncode == 0, done.stderr
  assert 'config.json: is gone or damaged' in done.stderr
  other = run(folder, '--resume', '--batch_size=8')
  assert other.returncode == 1 and 'batch_size: 4 -> 8' in other.stderr
