"""The sweep's binary: batches, logs that bsuite reads, runs that stop and go on, both drivers, documented errors."""

import csv
import dataclasses
import json
import sys
import threading
import types

import jax
import mnist_data
import numpy as np
import pytest
from absl import flags
from bsuite.logging import csv_load

from experiments.bsuite import binary
from experiments.bsuite import training as bsuite_training
from experiments.bsuite.settings import (
  BsuiteConfig,
  define_flags,
  ids_of,
  read_settings,
  seed_of,
  without_mnist_if_missing,
)
from experiments.bsuite.training import make_batch_runner
from experiments.common.errors import OUT_OF_TIME, Stopped
from hyperagent_jax import presets
from hyperagent_jax.baselines import ensemble
from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs import bsuite as envs

SMALL = ('--hidden_sizes=8', '--batch_size=4', '--min_replay=8', '--replay_capacity=300', '--nofigures')


_RUNNERS = {}


def kept_runner(task, agent, name, devices, seed_axis='auto'):
  """Programs are compiled once for all tests."""
  key = (task.batch_key, agent, name, tuple(devices), seed_axis)
  if key not in _RUNNERS:
    _RUNNERS[key] = make_batch_runner(task, agent, name, devices, seed_axis)
  return _RUNNERS[key]


@pytest.fixture
def run_main(monkeypatch):
  monkeypatch.setattr(bsuite_training, 'make_batch_runner', kept_runner)
  monkeypatch.setattr(binary, '_use_cores', lambda output: None)  # this process has its devices

  def run_main(*arguments):
    values = flags.FlagValues()
    define_flags(values)
    values(['bsuite', *SMALL, *arguments])
    monkeypatch.setattr(flags, 'FLAGS', values)
    monkeypatch.setattr(sys, 'argv', ['bsuite', *arguments])
    monkeypatch.setattr(read_settings, '__defaults__', (values,))
    return binary.main()

  return run_main


def logs(folder):
  return {path.name: list(csv.DictReader(path.open())) for path in sorted(folder.glob('*.csv'))}


@pytest.mark.slow
def test_a_batch_and_an_id_of_its_own_are_played_to_their_ends(run_main, tmp_path, capsys):
  run_main(
    '--bsuite_id=memory_len/0,memory_len/1,memory_len/4,bandit/3', '--num_episodes=20', f'--output_dir={tmp_path}'
  )
  found = logs(tmp_path)
  assert set(found) == {f'bsuite_id_-_{i}.csv' for i in ('memory_len-0', 'memory_len-1', 'memory_len-4', 'bandit-3')}
  assert all([int(row['episode']) for row in rows] == envs.log_schedule(20).tolist() for rows in found.values())
  assert [float(row['steps']) for row in found['bsuite_id_-_memory_len-4.csv']][-1] == 20 * 6
  assert not list((tmp_path / 'checkpoints').glob('*/*'))
  out = capsys.readouterr().out
  assert 'memory_len_0+1+4' in out and 'bandit_3' in out
  loaded, _ = csv_load.load_bsuite(str(tmp_path))
  assert set(loaded.bsuite_id) == {'memory_len/0', 'memory_len/1', 'memory_len/4', 'bandit/3'}
  assert {'memory_length', 'mapping_seed', 'total_perfect', 'total_regret'} <= set(loaded.columns)


@pytest.mark.slow
def test_an_id_in_a_batch_learns_what_it_learns_alone(run_main, tmp_path):
  common = ('--num_episodes=12', '--seed=2')
  run_main('--bsuite_id=catch_noise/3,catch_noise/8', *common, f'--output_dir={tmp_path / "all"}')
  run_main('--bsuite_id=catch_noise/8', *common, f'--output_dir={tmp_path / "one"}')
  name = 'bsuite_id_-_catch_noise-8.csv'
  together, alone = logs(tmp_path / 'all')[name], logs(tmp_path / 'one')[name]
  assert [row['episode'] for row in together] == [row['episode'] for row in alone]
  for column in ('total_return', 'total_regret'):
    np.testing.assert_allclose([float(r[column]) for r in together], [float(r[column]) for r in alone], rtol=1e-5)


def test_a_run_out_of_time_goes_on_as_if_it_had_not_stopped(run_main, tmp_path, monkeypatch):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 100)
  monkeypatch.setattr(bsuite_training, '_CHUNK', 100)
  arguments = ('--bsuite_id=catch/0,catch/1', '--num_episodes=50')
  run_main(*arguments, f'--output_dir={tmp_path / "whole"}')
  stopped = (*arguments, f'--output_dir={tmp_path / "stopped"}')
  with pytest.raises(Stopped) as e:
    run_main(*stopped, '--max_minutes=0.0001')
  assert e.value.status == OUT_OF_TIME and '--resume' in str(e.value)
  assert list((tmp_path / 'stopped' / 'checkpoints').glob('*/*'))
  half = logs(tmp_path / 'stopped')
  assert half and all(len(rows) < len(logs(tmp_path / 'whole')[name]) for name, rows in half.items())
  run_main(*stopped, '--resume')
  assert logs(tmp_path / 'stopped') == logs(tmp_path / 'whole')
  played = []
  monkeypatch.setattr(bsuite_training, 'train_batch', lambda *args: played.append(args))
  run_main(*stopped, '--resume', '--checkpoint_minutes=3')  # nothing is left to do; how often to save may change
  assert played == []


def test_a_run_is_resumed_on_another_number_of_devices(run_main, tmp_path, monkeypatch):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 20)
  arguments = ('--bsuite_id=bandit/0,bandit/1,bandit/2', '--num_episodes=40')
  run_main(*arguments, '--num_devices=2', f'--output_dir={tmp_path / "whole"}')
  stopped = (*arguments, f'--output_dir={tmp_path / "stopped"}')
  with pytest.raises(Stopped):
    run_main(*stopped, '--num_devices=2', '--max_minutes=0.0001')  # three ids and one that fills up
  run_main(*stopped, '--num_devices=1', '--resume')
  whole, resumed = logs(tmp_path / 'whole'), logs(tmp_path / 'stopped')
  assert whole == resumed
  assert len({rows[-1]['total_return'] for rows in whole.values()}) == 3  # a mix-up would show


def test_a_run_that_is_resumed_with_other_ids_keeps_what_is_finished_and_mixes_nothing_up(
  run_main, tmp_path, monkeypatch
):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 20)
  common = ('--num_episodes=40', f'--output_dir={tmp_path}')
  run_main('--bsuite_id=bandit/0', *common)
  with pytest.raises(Stopped):
    run_main('--bsuite_id=bandit/0,bandit/1,bandit/3', *common, '--resume', '--max_minutes=0.0001')
  assert len(logs(tmp_path)['bsuite_id_-_bandit-0.csv']) == len(envs.log_schedule(40))
  run_main('--bsuite_id=bandit/0,bandit/2,bandit/3', *common, '--resume')
  run_main('--bsuite_id=bandit/2,bandit/3', '--num_episodes=40', f'--output_dir={tmp_path / "alone"}')
  for name, rows in logs(tmp_path / 'alone').items():
    assert logs(tmp_path)[name] == rows


def test_a_part_of_the_sweep_has_ids_of_every_experiment():
  assert ids_of(['catch', 'catch/3'], every=8) == ['catch/0', 'catch/3', 'catch/8', 'catch/16']
  part = ids_of(['SWEEP'], every=4)
  assert {i.split('/')[0] for i in part} == set(envs.experiments()) and len(part) == 120


def test_no_two_ids_share_their_randomness():
  tasks = [types.SimpleNamespace(bsuite_id=i) for i in envs.parse_ids('SWEEP')]
  seeds = [seed_of(t, BsuiteConfig(seed=s)) for t in tasks for s in range(3)]
  assert len(set(seeds)) == 3 * 468 and 0 <= min(seeds) and max(seeds) < 2**31


def test_replay_holds_min_replay_interactions_before_learning_starts():
  agent = dataclasses.replace(presets.bsuite(), hidden_sizes=(8,), batch_size=4, min_replay=50, replay_capacity=300)
  tasks = [envs.make_bsuite('bandit/0', log=True)]  # where every other time step is no interaction
  runner = bsuite_training.make_batch_runner(tasks[0], agent, 'hyperagent', jax.devices()[:1])
  files = types.SimpleNamespace(output=types.SimpleNamespace(resume=False))
  state = bsuite_training._begin(tasks, '', runner, agent, BsuiteConfig(), files)
  assert int(state.statistics.num_interactions[0]) == 50


def test_ids_side_by_side_are_those_one_by_one_and_stop_together(run_main, tmp_path, monkeypatch):
  arguments = ('--bsuite_id=memory_size/0,bandit/2', '--num_episodes=20')
  run_main(*arguments, '--num_devices=1', f'--output_dir={tmp_path / "one"}')
  run_main(*arguments, '--num_devices=2', f'--output_dir={tmp_path / "two"}')
  assert logs(tmp_path / 'one') == logs(tmp_path / 'two') and len(logs(tmp_path / 'one')) == 2
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 1)
  monkeypatch.setattr(bsuite_training, '_CHUNK', 1)
  train, other_is_at_work = bsuite_training.train_batch, threading.Event()
  begin = bsuite_training._begin
  monkeypatch.setattr(bsuite_training, '_begin', lambda *args: (other_is_at_work.set(), begin(*args))[1])

  def fail_on_bandit(batch, *args):
    if batch.name != 'bandit_2':
      return train(batch, *args)
    assert other_is_at_work.wait(60)
    raise FloatingPointError('something breaks')

  monkeypatch.setattr(bsuite_training, 'train_batch', fail_on_bandit)
  bad = tmp_path / 'bad'
  with pytest.raises(FloatingPointError, match='something breaks'):
    run_main(*arguments, '--num_episodes=5000', f'--output_dir={bad}')
  assert list((bad / 'checkpoints').glob('memory_size_0/*.json'))


def test_an_id_whose_loss_is_not_finite_is_named_and_plays_to_its_end(run_main, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 10)

  def failing_runner(*args):
    runner = kept_runner(*args)

    def run(state, num_steps, active):
      state = runner.run(state, num_steps, active)
      step = state.statistics.nonfinite_step.at[1].set(12 if state.step > 12 else -1)
      return state._replace(statistics=state.statistics._replace(nonfinite_step=step))

    return runner._replace(run=run)

  monkeypatch.setattr(bsuite_training, 'make_batch_runner', failing_runner)
  arguments = ('--bsuite_id=bandit_scale/0,bandit_scale/19', '--num_episodes=60')
  with pytest.raises(
    FloatingPointError, match=r'^bandit_scale/19: the loss was not finite; the scores are of what was played'
  ):
    run_main(*arguments, f'--output_dir={tmp_path}')
  out = capsys.readouterr()
  assert out.err.count('warning: bandit_scale/19: the loss is not finite from time step 12 on') == 1
  assert str(tmp_path) in out.out
  good, bad = (logs(tmp_path)[f'bsuite_id_-_bandit_scale-{i}.csv'] for i in (0, 19))
  assert int(good[-1]['episode']) == int(bad[-1]['episode']) == 60
  run_main(*arguments, f'--output_dir={tmp_path}', '--resume')  # nothing is left to do


def test_a_network_of_nan_plays_on_through_both_drivers(run_main, tmp_path, capsys):
  overflow = ('--learning_rate=100', '--posterior_scale=1e6', '--prior_scale=1e6', '--hidden_sizes=8,8,8')
  arguments = ('--bsuite_id=catch/0', '--num_episodes=50', *overflow)
  for driver in ('fused', 'host'):
    folder = tmp_path / driver
    with pytest.raises(FloatingPointError, match=r'^catch/0: the loss was not finite'):
      run_main(*arguments, f'--driver={driver}', f'--output_dir={folder}')
    assert capsys.readouterr().err.count('warning: catch/0: the loss is not finite') == 1
    assert int(logs(folder)['bsuite_id_-_catch-0.csv'][-1]['episode']) == 50


def test_ids_go_on_from_the_checkpoint_of_a_batch_that_was_smaller_before(run_main, tmp_path, monkeypatch):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 200)
  monkeypatch.setattr(bsuite_training, '_CHUNK', 200)
  common, folder = ('--num_episodes=30',), f'--output_dir={tmp_path / "stopped"}'
  ids = '--bsuite_id=memory_len/0,memory_len/1,memory_len/22'  # episodes of 2, 3 and 101 steps
  run_main('--bsuite_id=memory_len/1', *common, folder)
  steps = []
  for _ in range(2):  # 1 is finished before the first, 0 before the second
    with pytest.raises(Stopped):
      run_main(ids, *common, folder, '--resume', '--max_minutes=0.0001')
    steps += [int(p.stem) for p in (tmp_path / 'stopped/checkpoints').glob('memory_len_0+22/*.json')]
    assert len(list((tmp_path / 'stopped/checkpoints').iterdir())) == 1
  assert steps[-1] >= steps[0] + 200
  run_main(ids, *common, folder, '--resume')
  run_main('--bsuite_id=memory_len/0,memory_len/22', *common, f'--output_dir={tmp_path / "whole"}')
  found = logs(tmp_path / 'stopped')
  assert len(found.pop('bsuite_id_-_memory_len-1.csv')) > 1
  assert found == logs(tmp_path / 'whole')


def test_a_log_that_goes_further_stands(run_main, tmp_path, monkeypatch):
  monkeypatch.setattr(bsuite_training, '_FIRST_CHUNK', 20)
  common = ('--num_episodes=60', f'--output_dir={tmp_path}')
  with pytest.raises(Stopped):
    run_main('--bsuite_id=bandit/0,bandit/1', *common, '--max_minutes=0.0001')
  run_main('--bsuite_id=bandit/0', *common, '--resume')
  finished = logs(tmp_path)['bsuite_id_-_bandit-0.csv']
  assert int(finished[-1]['episode']) == 60
  with pytest.raises(Stopped):
    run_main('--bsuite_id=bandit/0,bandit/1', *common, '--resume', '--max_minutes=0.0001')
  assert logs(tmp_path)['bsuite_id_-_bandit-0.csv'] == finished


def test_the_host_driver_plays_bsuites_environments(run_main, tmp_path):
  run_main('--bsuite_id=deep_sea/0,memory_len/2', '--num_episodes=10', '--driver=host', f'--output_dir={tmp_path}')
  found = logs(tmp_path)
  assert [r['steps'] for r in found['bsuite_id_-_deep_sea-0.csv']][-1] == '100'
  assert [r['steps'] for r in found['bsuite_id_-_memory_len-2.csv']][-1] == '40'


def test_the_host_driver_takes_mnist_from_the_folder_named(run_main, tmp_path):
  mnist_data.write(tmp_path)
  folder = tmp_path / 'run'
  run_main(
    '--bsuite_id=mnist/0', '--num_episodes=5', '--driver=host', f'--mnist_dir={tmp_path}', f'--output_dir={folder}'
  )
  assert len(logs(folder)['bsuite_id_-_mnist-0.csv']) == 5


@pytest.mark.parametrize('driver', ['fused', 'host'])
def test_both_drivers_play_with_a_history(run_main, tmp_path, driver):
  folder = tmp_path / driver
  run_main(
    '--bsuite_id=memory_len/1', '--num_episodes=10', '--frame_stack=4', f'--driver={driver}', f'--output_dir={folder}'
  )
  assert len(logs(folder)['bsuite_id_-_memory_len-1.csv']) == len(envs.log_schedule(10))


@pytest.mark.slow
def test_a_history_leaves_deep_sea_as_it_is(run_main, tmp_path):
  run_main('--bsuite_id=deep_sea/0,bandit/0', '--num_episodes=3', '--frame_stack=4', f'--output_dir={tmp_path}')
  assert set(logs(tmp_path)) == {'bsuite_id_-_deep_sea-0.csv', 'bsuite_id_-_bandit-0.csv'}


def test_spreading_deals_ids_out_and_fills_up_with_one_that_rests():
  tasks = tuple(envs.make_bsuite(f'catch/{i}') for i in range(5))
  spread, wanted = bsuite_training.spread(bsuite_training.Batch(tasks), 2)
  assert [task.bsuite_id for task in spread] == [f'catch/{i}' for i in (0, 2, 4, 1, 3, 4)]
  assert wanted.tolist() == [True] * 5 + [False]
  alone, wanted = bsuite_training.spread(bsuite_training.Batch(tasks[:1]), 2)
  assert len(alone) == 1 and wanted.all()


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--bsuite_id=cach'], '--bsuite_id=cach: no such id'),
    (['--bsuite_id='], 'must name an id'),
    (['--bsuite_id=catch', '--every=0'], '--every=0: must be from 1 to 1000'),
    (['--bsuite_id=mnist', '--mnist_dir=/nowhere'], 'train-images-idx3-ubyte.gz is missing'),
    (['--bsuite_id=catch/0', '--num_episodes=-1'], '--num_episodes=-1: must be at least 0'),
    (
      ['--bsuite_id=cartpole/0', '--num_episodes=1001'],
      '--num_episodes=1001: must be at most 1000',
    ),
    (['--bsuite_id=deep_sea/0', '--frame_stack=4'], '--frame_stack=4: must be 1 on deep_sea/0'),
    (['--bsuite_id=catch/0', '--agent=ddqn', '--index_dim=3'], '--index_dim: ddqn has no such setting'),
    (['--bsuite_id=catch/0', '--driver=host', '--num_devices=1'], '--num_devices: --driver=host has no such setting'),
  ],
)
def test_bad_input_is_refused_in_one_line(run_main, tmp_path, arguments, message):
  folder = tmp_path / 'run'
  with pytest.raises(ConfigError, match=message) as e:
    run_main(*arguments, f'--output_dir={folder}')
  assert '\n' not in str(e.value) and not folder.exists()


def test_missing_mnist_is_skipped_by_name_and_the_rest_is_run(run_main, tmp_path, capsys):
  ids = without_mnist_if_missing(['bandit/0', 'mnist/0', 'mnist/1', 'mnist_noise/0'], '/nowhere')
  assert ids == ['bandit/0']
  assert 'skipped: mnist, mnist_noise' in capsys.readouterr().err


def test_another_runs_folder_is_refused(run_main, tmp_path):
  arguments = ('--bsuite_id=bandit/0', '--num_episodes=3', f'--output_dir={tmp_path}')
  run_main(*arguments)
  with pytest.raises(ConfigError, match='already holds a run'):
    run_main(*arguments)
  with pytest.raises(ConfigError, match=r'sigma: 0\.0 -> 0\.5'):
    run_main(*arguments, '--resume', '--sigma=0.5')
  (tmp_path / 'bsuite_id_-_bandit-0.csv').write_text('a\n1\n')
  with pytest.raises(ConfigError, match=r'bandit-0.csv: not a log of bsuite: it has no column episode; move it away'):
    run_main(*arguments, '--resume')


def test_rivals_play_too(run_main, tmp_path):
  run_main('--bsuite_id=catch/0', '--num_episodes=4', '--agent=ensemble_plus', f'--output_dir={tmp_path}')
  assert logs(tmp_path)
  config, shared = json.loads((tmp_path / 'config.json').read_text()), presets.bsuite()
  assert (config['target_period'], config['max_grad_norm']) == (shared.target_period, shared.max_grad_norm)
  assert config['prior_scale'] == ensemble.deep_sea(20).prior_scale != shared.prior_scale
