"""The binary through its flags: a whole run, every documented error, and runs that are stopped, killed and resumed."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from experiments.deep_sea import binary as deep_sea
from experiments.deep_sea import figures
from experiments.deep_sea.settings import define_flags

ROOT = pathlib.Path(__file__).parents[2]
# Small enough to take seconds, long enough for several evaluations and checkpoints.
SMALL = (
  '--size=6',
  '--num_seeds=2',
  '--min_replay=32',
  '--batch_size=16',
  '--hidden_sizes=16,16',
  '--max_episodes=150',
  '--eval_period=100',
  '--num_eval_episodes=10',
  '--checkpoint_period=200',
  '--nostop_when_solved',
  '--notensorboard',
  '--nofigures',
)


def command(folder, *arguments):
  return [sys.executable, '-m', 'experiments.deep_sea', *SMALL, f'--output_dir={folder}', *arguments]


def run(folder, *arguments):
  return subprocess.run(command(folder, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


def rows(folder):
  """The rows without the one column that depends on the clock."""
  with open(folder / 'results.csv', newline='') as f:
    return [{k: v for k, v in row.items() if k != 'step_rate'} for row in csv.DictReader(f)]


def checkpoints(folder):
  return sorted((folder / 'checkpoints' / 'size_6').glob('*.json'))


@pytest.fixture(scope='session')
def whole(tmp_path_factory):
  """The folder of a run that was never stopped."""
  folder = tmp_path_factory.mktemp('whole') / 'run'
  done = run(folder)
  assert done.returncode == 0, done.stderr
  return folder, done


def test_a_run_writes_results_and_prints_a_table(whole):
  folder, done = whole
  found = rows(folder)
  assert [(r['seed'], r['env_step']) for r in found[:4]] == [('0', '100'), ('1', '100'), ('0', '200'), ('1', '200')]
  assert len(found) == 2 * 9  # 150 episodes of 6 steps, evaluated every 100
  assert {r['environment_name'] for r in found} == {'deep_sea/6'}
  assert 'seeds solved' in done.stdout
  assert 'steps/s' in done.stderr
  assert (folder / 'config.json').exists()
  solved = figures.episodes_to_solve(figures.read_results(str(folder / 'results.csv')))
  assert set(solved) == {6}


def load_state(folder):
  import orbax.checkpoint as ocp

  with ocp.PyTreeCheckpointer() as checkpointer:
    return checkpointer.restore(checkpoints(folder)[-1].with_suffix('').absolute())


def assert_same_state(folder, whole_folder):
  ours, theirs = load_state(folder), load_state(whole_folder)
  assert set(ours) == set(theirs)
  for name in ours:
    assert (ours[name] == theirs[name]).all(), name


def kill_when(folder, ready, number, *arguments):
  """Starts a run and sends it a signal once `ready()`."""
  with subprocess.Popen(
    command(folder, *arguments),
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    deadline = time.monotonic() + 240
    while not ready():
      assert process.poll() is None, process.communicate()[1]
      assert time.monotonic() < deadline
      time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
  return process.returncode, out, err


def test_killed_at_once_then_resumed_is_bit_for_bit_the_run_never_stopped(whole, tmp_path):
  folder = tmp_path / 'run'
  code, _, _ = kill_when(folder, lambda: len(checkpoints(folder)) >= 2, signal.SIGKILL)
  assert code == -signal.SIGKILL
  with open(folder / 'results.csv', 'a') as f:
    f.write('deep_sea/6,torn')  # as a kill in the middle of a write leaves it
  done = run(folder, '--resume')
  assert done.returncode == 0, done.stderr
  assert rows(folder) == rows(whole[0])
  assert_same_state(folder, whole[0])


@pytest.mark.slow
def test_sigterm_saves_says_so_and_resumes(whole, tmp_path):
  folder = tmp_path / 'run'
  # Without the signal there would be no checkpoint before the end.
  settings = '--checkpoint_period=1000000'
  ready = lambda: (folder / 'results.csv').exists() and len(rows(folder)) >= 2
  code, _, err = kill_when(folder, ready, signal.SIGTERM, settings)
  assert code == 128 + signal.SIGTERM, err
  assert '--resume' in err.strip().splitlines()[-1]
  assert 'Traceback' not in err
  assert len(checkpoints(folder)) == 1
  done = run(folder, '--resume', settings)
  assert done.returncode == 0, done.stderr
  assert rows(folder) == rows(whole[0])
  assert_same_state(folder, whole[0])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_skipped_then_all_damaged_refused(tmp_path, whole):
  folder = tmp_path / 'run'
  kill_when(folder, lambda: len(checkpoints(folder)) >= 2, signal.SIGTERM)
  newest = checkpoints(folder)[-1].with_suffix('')
  largest = max((p for p in newest.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 0xFF
  largest.write_bytes(data)
  done = run(folder, '--resume')
  assert done.returncode == 0, done.stderr
  assert f'{newest}: damaged or partial' in done.stderr
  assert rows(folder) == rows(whole[0])
  for manifest in checkpoints(folder):
    manifest.unlink()
  before = (folder / 'results.csv').read_bytes()
  assert_one_line(run(folder, '--resume'), 'no checkpoint there is whole')
  assert (folder / 'results.csv').read_bytes() == before


def assert_one_line(done, text):
  assert done.returncode == 1, done.stderr
  lines = [line for line in done.stderr.strip().splitlines() if 'steps/s' not in line and 'compiling' not in line]
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith('deep_sea: ')
  assert text in lines[0], lines[0]


@pytest.mark.slow
def test_nan_names_the_step_and_keeps_the_last_checkpoint(tmp_path):
  folder = tmp_path / 'run'
  # Weights of hundreds in three layers, times a million: the loss overflows float32 within a few updates.
  overflow = ['--learning_rate=100', '--posterior_scale=1e6', '--prior_scale=1e6', '--hidden_sizes=8,8,8']
  done = run(folder, *overflow)
  assert_one_line(done, 'not finite from time step')
  assert rows(folder) == []


def test_a_full_disk_is_one_line(tmp_path):
  folder = tmp_path / 'run'

  # The shell's limit on file sizes, 2 KiB; the cache of compiled programs cannot be written to either.
  limited = ['bash', '-c', 'ulimit -f 2; exec "$@"', 'bash', *command(folder)]
  environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'no_cache')}
  done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  last = done.stderr.strip().splitlines()[-1]
  assert last.startswith('deep_sea: '), done.stderr
  assert 'File too large' in last or 'cannot save' in last


def in_process(monkeypatch, capsys, *arguments):
  """Runs the binary's main for errors that come before any work; returns the status and standard error."""
  if 'size' not in flags.FLAGS:  # absl's app knows no other flags than these
    define_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  monkeypatch.setattr(sys, 'argv', ['deep_sea', *arguments])
  with pytest.raises(SystemExit) as e:
    deep_sea.start_main(deep_sea.main, 'deep_sea')
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  return e.value.code


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (['--size=1'], '--size=1: must be at least 2'),
    (['--size=20,x'], '--size=20,x: must be whole numbers'),
    (['--size=20,20'], 'different sizes'),
    (['--num_seeds=0'], '--num_seeds=0: must be at least 1'),
    (['--learning_rate=-0.1'], '--learning_rate=-0.1: must be at least 1e-12'),
    (['--index_dim=0'], '--index_dim=0: must be at least 1'),
    (['--agent=rainbow'], '--agent=rainbow: must be one of hyperagent'),
    (['--agent=ddqn', '--index_dim=3'], '--index_dim: ddqn has no such setting'),
    (['--epsilon_steps=9'], '--epsilon_steps: hyperagent has no such setting'),
    (['--agent=ensemble_plus', '--ensemble_size=0'], '--ensemble_size=0: must be at least 1'),
    (['--agent=enn_dqn', '--update_indices=exact'], '--update_indices=exact: must be a whole number'),
    (['--agent=sane', '--preset=deep_sea_best'], 'sane has one preset, deep_sea'),
    (['--preset=best'], '--preset=best: must be one of deep_sea'),
    (['--reference_distribution=uniform'], '--reference_distribution=uniform: must be one of sphere'),
    (['--perturbation_distribution=one_hot'], '--perturbation_distribution=one_hot: must be one of sphere'),
    (['--target_index=dependent'], 'the exact expectation needs independent targets'),
    (['--update_ratio=0.3'], 'a whole number or a fraction 1/k'),
    (['--resume'], 'needs --output_dir'),
    (['--resume', '--output_dir=/nonexistent/folder'], 'no checkpoint'),
    (['--output_dir=/proc/nonexistent/folder'], 'cannot be written'),
    (['--batch_size=many'], 'batch_size'),
    (['--no_such_flag=1'], 'no_such_flag'),
    (['stray'], 'stray'),
  ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, arguments, text):
  message = in_process(monkeypatch, capsys, *arguments)
  assert isinstance(message, str)  # so Python exits with status 1 and prints it on standard error
  assert message.startswith('deep_sea: ')
  assert text in message
  assert '\n' not in message


def test_another_runs_folder_and_other_flags_are_refused(whole, monkeypatch, capsys):
  folder = whole[0]
  before = (folder / 'results.csv').read_bytes()
  assert 'already holds a run' in in_process(monkeypatch, capsys, f'--output_dir={folder}')
  message = in_process(
    monkeypatch, capsys, *SMALL, f'--output_dir={folder}', '--resume', '--index_dim=8', '--sigma=0.5'
  )
  assert 'index_dim: 4 -> 8; sigma: 0.0 -> 0.5' in message
  assert (folder / 'results.csv').read_bytes() == before


def test_resume_of_a_run_without_checkpoint_is_refused(monkeypatch, capsys, tmp_path):
  (tmp_path / 'results.csv').write_text('x')
  assert 'it has no checkpoint' in in_process(monkeypatch, capsys, '--resume', f'--output_dir={tmp_path}')


@pytest.mark.slow
def test_figures_of_several_sizes_are_drawn(tmp_path):
  done = run(tmp_path, '--size=4,5', '--max_episodes=60', '--figures', '--tensorboard', '--stochastic')
  assert done.returncode == 0, done.stderr
  for name in ('figure.png', 'posterior_size_4.png', 'posterior_size_5.gif'):
    assert (tmp_path / name).stat().st_size > 1000
  assert list((tmp_path / 'tensorboard').glob('size_5/events*'))


def test_help_lists_the_flags():
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.deep_sea', '--help'], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  for name in ('--size', '--num_seeds', '--update_indices', '--[no]resume'):
    assert name in done.stdout


def test_a_rival_runs_through_the_same_binary_and_sums_up_each_seed(tmp_path):
  folder = tmp_path / 'run'
  flags_of_rival = ['--agent=ensemble_plus', '--ensemble_size=3', '--mask_probability=0.5', '--max_episodes=60']
  done = run(folder, *flags_of_rival)
  assert done.returncode == 0, done.stderr
  assert {r['agent_name'] for r in rows(folder)} == {'ensemble_plus'}
  settings = json.loads((folder / 'config.json').read_text())
  assert settings['ensemble_size'] == 3 and settings['mask_probability'] == 0.5
  assert 'index_dim' not in settings and 'sigma' not in settings  # it has neither
  with open(folder / 'summary.csv', newline='') as f:
    summary = list(csv.DictReader(f))
  assert [(r['agent'], r['size'], r['seed'], r['max_episodes']) for r in summary] == [
    ('ensemble_plus', '6', '0', '60'),
    ('ensemble_plus', '6', '1', '60'),
  ]
  final = {r['seed']: r for r in rows(folder)}
  for r in summary:
    first_solved = [x for x in rows(folder) if x['seed'] == r['seed'] and x['solved'] == '1'][:1]
    told = first_solved[0] if first_solved else final[r['seed']]
    assert r['solved'] == told['solved'] and r['episodes'] == told['episode']
    # Three networks: 21 rows of 16, a layer of 16, two actions, and all their biases.
    assert int(r['parameters']) == 3 * (21 * 16 + 16 + 16 * 16 + 16 + 16 * 2 + 2)


def test_prefilling_counts_as_no_training_and_is_not_evaluated(tmp_path):
  done = run(tmp_path / 'run', '--min_replay=250')
  assert done.returncode == 0, done.stderr
  assert [r['env_step'] for r in rows(tmp_path / 'run')[::2]] == ['300', '400', '500', '600', '700', '800', '900']
