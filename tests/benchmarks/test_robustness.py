"""The benchmark that provokes what can go wrong, at a small scale; all of it takes an hour."""

import random
import subprocess
import sys

import pytest

from benchmarks.robustness import damages, inputs
from benchmarks.robustness.commands import Outcome, complaint, last_lines
from benchmarks.robustness.kills import left_over, same_rows, same_tables


def outcome(status=1, err='', out='', asked=()):
  return Outcome(status, out, err, 1.0, asked)


@pytest.mark.parametrize(
  ('ended', 'what'),
  [
    (outcome(err='deep_sea: --size=1: must be at least 2\n'), ''),
    (outcome(err='size_4  20 steps  compiling  3s left\nwarning: x\ndeep_sea: disk\n'), ''),
    (outcome(err='Traceback (most recent call last):\n  File\nKeyError\n'), 'traceback'),
    (outcome(err=''), '0 lines'),
    (outcome(err='a\nb\n'), '2 lines'),
    (outcome(status=-6), 'killed by signal 6'),
    (outcome(status=143, asked=(15,), err='deep_sea: stopped by signal 15\n'), ''),
    (outcome(status=-9, asked=(15, 2, 2, 9)), 'hang'),
    (outcome(status=0, err='anything\nat all\n'), ''),
  ],
)
def test_what_may_not_be_is_told_from_what_may(ended, what):
  assert complaint(ended) == what


def test_progress_and_warnings_are_not_what_a_command_says_at_its_end():
  text = 'size_4  5 steps  9 steps/s  3 episodes\nwarning: w\ndeep_sea: --max_episodes=0: must be at least 1\n'
  assert last_lines(outcome(err=text)) == ['deep_sea: --max_episodes=0: must be at least 1']


def test_every_flag_of_every_binary_is_tried():
  numbers = {binary: len(list(inputs.cases(binary))) for binary in inputs.BINARIES}
  assert sum(numbers.values()) > 1_500 and all(number >= 5 for number in numbers.values())
  tried = {case[0].partition('=')[0] for case in inputs.cases('deep_sea')}
  assert {'--size', '--index_dim', '--learning_rate', '--epsilon_steps', '--output_dir', '--resume'} <= tried


def test_tables_that_differ_are_told(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  for folder, rows in ((a, '1,5\n2,6\n'), (b, '1,9\n2,6\n')):
    folder.mkdir()
    (folder / 'results.csv').write_text('x,step_rate\n' + rows)
  assert same_tables(a, b) == ''  # but for the clock
  (b / 'results.csv').write_text('x,step_rate\n1,5\n3,6\n')
  assert same_tables(a, b) == 'results.csv, row 1: x differs'
  (b / 'results.csv').write_text('x,step_rate\n1,5\n')
  assert same_tables(a, b) == 'results.csv: 2 rows, not 1'
  (b / 'other.csv').write_text('x\n')
  assert same_tables(a, b) == "files: ['other.csv']"
  head = 'game,seed,iteration,kind,action\n'
  for folder in (a, b):
    for name in ('results.csv', 'scores.csv'):
      (folder / name).write_text(head + 'pong,0,1,final,\n')
  assert same_rows(a, b) == ''
  (a / 'results.csv').write_text(head + 'pong,0,1,final,\n' * 2)
  assert same_rows(a, b).startswith('results.csv: 2 rows, not 1')
  (a / 'x.json.tmp').write_text('')
  assert left_over(a) == 'x.json.tmp' and left_over(b) == ''


@pytest.mark.parametrize('how', damages.DAMAGES)
def test_damage_changes_a_file(tmp_path, how):
  path = tmp_path / 'file'
  for number in range(20):
    path.write_bytes(bytes(range(100)))
    damages.damage(path, how, random.Random(number))
    assert not path.exists() if how == 'removed' else path.read_bytes() != bytes(range(100))


def run(folder, *arguments):
  words = [sys.executable, '-m', 'benchmarks.robustness', '--reduced', f'--output_dir={folder}', *arguments]
  return subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)


def test_an_unknown_part_is_refused(tmp_path):
  done = run(tmp_path, '--parts=luck')
  assert done.returncode == 1 and '--parts=luck: no part luck' in done.stderr


@pytest.mark.long
def test_each_part_does_what_it_says_at_a_small_scale(tmp_path):
  done = run(tmp_path)
  assert done.returncode == 0, done.stdout + done.stderr
  assert {path.name for path in tmp_path.iterdir()} == {
    'inputs.csv',
    'kills.csv',
    'damages.csv',
    'stops.csv',
    'steady.csv',
  }
  lines = {path.name: path.read_text().count('\n') for path in tmp_path.iterdir()}
  assert lines['inputs.csv'] > 40 and lines['kills.csv'] == 2 and lines['damages.csv'] == 3 and lines['steady.csv'] > 3
  again = run(tmp_path, '--parts=inputs,kills,damages')  # is done
  assert again.returncode == 0 and lines['kills.csv'] == (tmp_path / 'kills.csv').read_text().count('\n')
