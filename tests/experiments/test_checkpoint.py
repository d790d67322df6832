"""Checkpoints: exact, verified, and never fewer than promised."""

import os
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common import checkpoint, quiet
from experiments.common.errors import CheckpointError
from hyperagent_jax.config import ConfigError


def make_state():
  return {
    'key': jax.random.key(3),
    'nested': (jnp.arange(5, dtype=jnp.int8), jnp.float32(np.pi)),
    'empty': jnp.zeros((0, 4)),
    'none': None,
  }


def fail(text):
  raise AssertionError(text)


def save(folder, step, config=None):
  checkpoint.save(str(folder), step, make_state(), config or {'a': 1}, {'step': step})


def names(folder):
  return sorted(p.name for p in folder.iterdir())


def test_a_state_comes_back_exactly(tmp_path):
  save(tmp_path, 7)
  state = make_state()
  restored = checkpoint.restore(str(tmp_path), state, {'a': 1}, fail)
  assert restored.step == 7
  assert restored.record == {'step': 7}
  assert (jax.random.key_data(restored.state['key']) == jax.random.key_data(state['key'])).all()
  for ours, theirs in zip(restored.state['nested'], state['nested'], strict=True):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
  assert restored.state['empty'].shape == (0, 4)


def test_arrays_of_another_shape_are_refused_by_name(tmp_path):
  save(tmp_path, 7)
  like = {**make_state(), 'nested': (jnp.arange(6, dtype=jnp.int8), jnp.float32(0.0))}
  with pytest.raises(CheckpointError, match=r'nested/0 is of shape \(5,\) in the checkpoint, but \(6,\)'):
    checkpoint.restore(str(tmp_path), like, {'a': 1}, fail)


def test_no_checkpoint_is_written_over_a_whole_one_of_the_same_step(tmp_path):
  save(tmp_path, 7)
  assert checkpoint.free_name(str(tmp_path), 7) == 8 and checkpoint.free_name(str(tmp_path), 6) == 6
  (tmp_path / '000000000007.json').write_text('{')
  assert checkpoint.free_name(str(tmp_path), 7) == 7  # which is damaged


def test_nothing_saved_is_none(tmp_path):
  assert checkpoint.restore(str(tmp_path / 'missing'), make_state(), {}, fail) is None


def test_only_the_newest_two_are_kept(tmp_path):
  for step in (1, 2, 3, 4):
    save(tmp_path, step)
  assert names(tmp_path) == ['000000000003', '000000000003.json', '000000000004', '000000000004.json']


def test_what_a_kill_left_behind_costs_no_whole_checkpoint(tmp_path):
  save(tmp_path, 1)
  for partial in ('000000000003', '000000000004.orbax-checkpoint-tmp'):
    (tmp_path / partial).mkdir()
  save(tmp_path, 2)
  assert names(tmp_path) == ['000000000001', '000000000001.json', '000000000002', '000000000002.json']
  assert checkpoint.latest(str(tmp_path))[0] == 2


def test_a_kill_during_the_first_save_is_as_if_nothing_was_saved(tmp_path):
  (tmp_path / '000000000100.orbax-checkpoint-tmp').mkdir()
  warnings = []
  assert checkpoint.restore(str(tmp_path), make_state(), {}, warnings.append) is None
  assert 'damaged or partial' in warnings[0]


@pytest.mark.parametrize('damage', ['flip', 'cut', 'remove', 'add'])
def test_damage_anywhere_is_found_and_the_one_before_is_used(tmp_path, damage):
  save(tmp_path, 1)
  save(tmp_path, 2)
  state = make_state()
  files = [p for p in (tmp_path / '000000000002').rglob('*') if p.is_file() and p.stat().st_size]
  assert len(files) > 2
  for path in files:
    data = path.read_bytes()
    if damage == 'flip':
      path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == 'cut':
      path.write_bytes(data[:-1])
    elif damage == 'remove':
      path.unlink()
    else:
      (path.parent / 'stray').write_bytes(b'x')
    warnings = []
    assert checkpoint.restore(str(tmp_path), state, {'a': 1}, warnings.append).step == 1
    assert '000000000002' in warnings[0]
    (path.parent / 'stray').unlink(missing_ok=True)
    path.write_bytes(data)
  assert checkpoint.restore(str(tmp_path), state, {'a': 1}, fail).step == 2


def test_all_damaged_is_an_error(tmp_path):
  save(tmp_path, 1)
  (tmp_path / '000000000001.json').write_text('{}')
  with pytest.raises(CheckpointError, match='no checkpoint there is whole'):
    checkpoint.restore(str(tmp_path), make_state(), {'a': 1}, lambda text: None)


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path):
  save(tmp_path, 1, {'a': 1, 'b': 2, 'c': 3})
  with pytest.raises(ConfigError, match='b: 2 -> 5; d: None -> 4') as e:
    checkpoint.restore(str(tmp_path), make_state(), {'a': 1, 'b': 5, 'c': 3, 'd': 4}, fail)
  assert 'a:' not in str(e.value)


def test_a_full_disk_is_an_error_before_anything_is_removed(tmp_path, monkeypatch):
  save(tmp_path, 1)
  monkeypatch.setattr(checkpoint.shutil, 'disk_usage', lambda path: type('Usage', (), {'free': 3})())
  with pytest.raises(CheckpointError, match='cannot save the checkpoint of step 1'):
    save(tmp_path, 1)
  assert checkpoint.latest(str(tmp_path))[0] == 1


def test_standard_error_is_held_back_and_comes_after_success_alone(capfd):
  with quiet.held_back():
    os.write(2, b'a line of another thread\n')
    assert capfd.readouterr().err == ''
  assert capfd.readouterr().err == 'a line of another thread\n'
  with pytest.raises(ValueError), quiet.held_back():
    os.write(2, b'a traceback\n')
    raise ValueError
  os.write(2, b'after\n')
  assert capfd.readouterr().err == 'after\n'


class ThreadOfOrbax(threading.Thread):
  """One like orbax's, whose `join` raises what ended it."""

  __module__ = 'orbax.some.module'

  def join(self, timeout=None):
    super().join(timeout)
    raise ValueError('what ended the thread')


def test_tracebacks_of_threads_that_outlive_the_error_are_dropped_however_late_they_come(capfd):
  def second():
    time.sleep(0.4)
    os.write(2, b'a later traceback\n')

  def first():
    time.sleep(0.8)
    os.write(2, b'a late traceback\n')
    ThreadOfOrbax(target=second).start()

  with pytest.raises(ValueError, match='the error itself'), quiet.held_back():
    ThreadOfOrbax(target=first).start()
    raise ValueError('the error itself')
  os.write(2, b'after\n')
  assert not [t for t in threading.enumerate() if isinstance(t, ThreadOfOrbax)]
  assert capfd.readouterr().err == 'after\n'


def test_threads_that_never_end_do_not_keep_the_error(capfd, monkeypatch):
  monkeypatch.setattr(quiet, '_LONGEST_WAIT', 0.1)
  hanging = threading.Event()
  ThreadOfOrbax(target=hanging.wait).start()
  try:
    with pytest.raises(ValueError, match='the error itself'), quiet.held_back():
      raise ValueError('the error itself')
  finally:
    hanging.set()
  os.write(2, b'after\n')
  assert capfd.readouterr().err == 'after\n'


def test_of_errors_that_nothing_can_catch_only_those_of_late_writes_are_dropped(monkeypatch):
  reported = []
  monkeypatch.setattr(sys, 'unraisablehook', reported.append)
  for _ in range(2):  # once installed, it stays one
    with pytest.raises(ValueError), quiet.held_back():
      raise ValueError
  error = lambda value, of=None: SimpleNamespace(exc_type=type(value), exc_value=value, object=of, err_msg=None)
  sys.unraisablehook(error(RuntimeError('Event loop is closed')))
  assert reported == []
  others = [
    error(RuntimeError('Event loop is closed'), of=error),
    error(RuntimeError('something else')),
    error(ValueError('Event loop is closed')),
  ]
  for other in others:
    sys.unraisablehook(other)
  assert reported == others


def test_two_threads_save_without_losing_standard_error(tmp_path, capfd):
  threads = [threading.Thread(target=save, args=(tmp_path / str(i), 1)) for i in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  os.write(2, b'still there\n')
  assert capfd.readouterr().err.endswith('still there\n')
  assert all(names(tmp_path / str(i)) == ['000000000001', '000000000001.json'] for i in range(2))
