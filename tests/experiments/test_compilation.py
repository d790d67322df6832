"""Compiled programs are kept between processes, and give the same numbers."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.common import compilation
from experiments.common.compilation import DEFAULT_DIR, folder_of, keep_compiled

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  *('--size=5', '--num_seeds=2', '--min_replay=32', '--batch_size=16', '--hidden_sizes=16,16', '--max_episodes=40'),
  *('--eval_period=100', '--num_eval_episodes=10', '--nostop_when_solved', '--notensorboard', '--nofigures'),
)
OPTIONS = ('compilation_cache_dir', 'enable_compilation_cache')
THRESHOLDS = ('persistent_cache_min_compile_time_secs', 'persistent_cache_min_entry_size_bytes')


@pytest.fixture
def jax_settings():
  """JAX's settings, which are put back afterwards."""
  before = {name: getattr(jax.config, f'jax_{name}') for name in (*OPTIONS, *THRESHOLDS)}
  yield lambda name: getattr(jax.config, f'jax_{name}')
  for name, value in before.items():
    jax.config.update(f'jax_{name}', value)


def train(folder, *arguments):
  """A run of DeepSea with the settings of JAX that a user has, who set none."""
  environment = {k: v for k, v in os.environ.items() if 'CACHE' not in k}
  command = [sys.executable, '-m', 'experiments.deep_sea', *SMALL, f'--output_dir={folder}', *arguments]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  return done.stderr


def last_arrays(folder):
  """All arrays of a run's last checkpoint."""
  step = sorted(path for path in (folder / 'checkpoints' / 'size_5').iterdir() if path.is_dir())[-1]
  return ocp.PyTreeCheckpointer().restore(step)


@pytest.fixture(scope='module')
def first(tmp_path_factory):
  """A run that compiled everything, and where that is kept."""
  folder = tmp_path_factory.mktemp('compiled')
  train(folder / 'run', f'--compilation_cache_dir={folder / "kept" / "here"}')
  return folder


def test_a_second_run_compiles_nothing_and_gives_the_same_bits(first, tmp_path):
  kept = first / 'kept' / 'here'
  before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
  assert len(before) > 20
  train(tmp_path / 'run', f'--compilation_cache_dir={kept}')
  assert before == {path: path.stat().st_mtime_ns for path in kept.iterdir()}
  arrays, again = (jax.tree.leaves(last_arrays(folder / 'run')) for folder in (first, tmp_path))
  assert len(arrays) > 20
  for x, y in zip(arrays, again, strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.long
def test_a_run_goes_on_in_another_place_or_none(first, tmp_path):
  train(first / 'run', '--resume', '--compilation_cache_dir=')
  file = tmp_path / 'file'
  file.touch()
  error = train(first / 'run', '--resume', f'--compilation_cache_dir={file / "below"}')
  (warning,) = [line for line in error.splitlines() if 'compilation' in line]
  assert warning.startswith(f'warning: --compilation_cache_dir={file}/below: cannot be written: Not a directory;')


@pytest.mark.long
def test_a_damaged_program_is_compiled_anew(first, tmp_path):
  kept = first / 'kept' / 'here'
  for path in kept.iterdir():
    path.write_bytes(path.read_bytes()[:100])
  train(tmp_path / 'run', f'--compilation_cache_dir={kept}')
  arrays, again = (jax.tree.leaves(last_arrays(folder / 'run')) for folder in (first, tmp_path))
  assert all(np.array_equal(x, y) for x, y in zip(arrays, again, strict=True))


def test_the_default_is_below_the_users_cache(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ann')
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  assert str(folder_of(DEFAULT_DIR)) == '/home/ann/.cache/hyperagent_jax/compiled'
  monkeypatch.setenv('XDG_CACHE_HOME', '/scratch/ann')
  assert str(folder_of(DEFAULT_DIR)) == '/scratch/ann/hyperagent_jax/compiled'
  assert str(folder_of('~/.cached')) == '/home/ann/.cached'
  assert str(folder_of('here')) == 'here'


def test_jaxs_own_setting_goes_before_the_default_but_not_before_the_flag(jax_settings, tmp_path):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 7.0)
  keep_compiled(DEFAULT_DIR)
  assert jax_settings('compilation_cache_dir') == str(tmp_path / 'own')
  assert jax_settings('persistent_cache_min_compile_time_secs') == 7.0
  keep_compiled(str(tmp_path / 'flag'))
  assert jax_settings('compilation_cache_dir') == str(tmp_path / 'flag')
  assert jax_settings('persistent_cache_min_compile_time_secs') == 0.0


def test_without_the_setting_the_default_is_used(jax_settings, monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  jax.config.update('jax_compilation_cache_dir', None)
  keep_compiled(compilation.DEFAULT_DIR)
  assert jax_settings('compilation_cache_dir') == str(tmp_path / 'hyperagent_jax' / 'compiled')
  assert jax_settings('enable_compilation_cache')


def test_an_empty_folder_turns_it_off(jax_settings):
  keep_compiled('')
  assert not jax_settings('enable_compilation_cache')
