"""Runs that version 0.1 began, and how it went on with them: `version_0_1/` holds both.

They were made, and continued to the files named `_expected`, by these flags with --max_minutes=0.0001 and --resume.
"""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest

from experiments.common import checkpoint
from experiments.common.errors import CheckpointError
from hyperagent_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
OLD = pathlib.Path(__file__).parent / 'version_0_1'
SMALL = ['--hidden_sizes=8', '--index_dim=2', '--nofigures']
DEEP_SEA = [
  *('--size=6', '--num_seeds=1', '--max_episodes=60', '--stop_when_solved=false', '--eval_period=120'),
  *('--num_eval_episodes=5', '--replay_capacity=600', '--notensorboard', *SMALL),
]
BSUITE = ['--bsuite_id=catch/0', '--num_episodes=300', '--replay_capacity=300', *SMALL]


def resume(kind, folder, arguments):
  command = [sys.executable, '-m', f'experiments.{kind}', *arguments, '--resume', f'--output_dir={folder}']
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def rows_of(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize(
  ('kind', 'arguments', 'table'), [('deep_sea', DEEP_SEA, 'results.csv'), ('bsuite', BSUITE, 'bsuite_id_-_catch-0.csv')]
)
def test_a_run_of_version_0_1_is_gone_on_with_as_that_version_did(tmp_path, kind, arguments, table):
  shutil.copytree(OLD / kind, tmp_path / 'run')
  before = rows_of(tmp_path / 'run' / table)
  done = resume(kind, tmp_path / 'run', arguments)
  assert done.returncode == 0, done.stderr
  found, expected = rows_of(tmp_path / 'run' / table), rows_of(OLD / f'{kind}_expected.csv')
  assert len(found) == len(expected) > len(before)
  for row, wanted in zip(found, expected, strict=True):
    for name in set(wanted) - {'step_rate', 'loss', 'grad_norm'}:
      assert row[name] == wanted[name], name
    for name in {'loss', 'grad_norm'} & set(wanted):  # the suite compiles with fewer optimisations
      assert float(row[name]) == pytest.approx(float(wanted[name]), rel=1e-3)


def test_a_run_of_version_0_1_that_is_gone_on_with_twice_keeps_its_rows(tmp_path):
  """Rows that an old checkpoint has no copy of are handed on by every later one."""
  shutil.copytree(OLD / 'deep_sea', tmp_path / 'run')
  done = resume('deep_sea', tmp_path / 'run', [*DEEP_SEA, '--max_minutes=0.0001'])
  assert done.returncode == 75, done.stderr
  done = resume('deep_sea', tmp_path / 'run', DEEP_SEA)
  assert done.returncode == 0, done.stderr
  found, expected = (rows_of(path) for path in (tmp_path / 'run/results.csv', OLD / 'deep_sea_expected.csv'))
  assert [row['env_step'] for row in found] == [row['env_step'] for row in expected]


def test_manifests_tell_their_format_and_a_later_one_is_refused_in_a_line(tmp_path):
  checkpoint.save(str(tmp_path), 3, {'x': jnp.ones(3)}, {'a': 1}, {})
  path = tmp_path / '000000000003.json'
  manifest = json.loads(path.read_text())
  assert manifest['format'] == checkpoint.FORMAT == 3
  path.write_bytes(checkpoint._manifest_text({**manifest, 'format': 4}))
  with pytest.raises(ConfigError, match='is of format 4, which a later version wrote; must be at most 3'):
    checkpoint.restore(str(tmp_path), {'x': jnp.ones(3)}, {'a': 1}, print)


def test_an_array_that_a_checkpoint_lacks_is_one_line(tmp_path):
  checkpoint.save(str(tmp_path), 3, {'x': jnp.ones(3)}, {}, {})
  with pytest.raises(CheckpointError, match='has no array y'):
    checkpoint.restore(str(tmp_path), {'x': jnp.ones(3), 'y': jnp.ones(2)}, {}, print)
