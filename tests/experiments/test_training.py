"""Runs that are stopped anywhere and go on: a task's training and final evaluation, several games, several stages."""

import contextlib
import dataclasses
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from experiments.atari import report as atari_report
from experiments.atari import stages as atari_stages
from experiments.atari import training as atari_training
from experiments.atari.settings import define_flags, read_settings
from experiments.atari.training import train_games
from experiments.common import checkpoint, training
from experiments.common.errors import OUT_OF_TIME, CheckpointError, Stopped
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.resumption import finished_history
from experiments.common.runs import RunConfig
from experiments.common.task import Files, History, Task, checkpoints_of
from experiments.common.training import train
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.networks import make_network
from hyperagent_jax.replay import make_replay
from hyperagent_jax.runner import make_runner

SIZE = 4
CONFIG = HyperAgentConfig(grid_size=SIZE, hidden_sizes=(8,), batch_size=4, min_replay=8, replay_capacity=200)
RUN = dataclasses.replace(RunConfig(), eval_period=20, num_eval_episodes=3, checkpoint_period=1000)
SETTINGS = {'a': 1}


@pytest.fixture(scope='module')
def runner():
  agent = make_hyperagent(make_network(CONFIG, 2), make_optimizer(CONFIG), CONFIG)
  replay = make_replay(200, 1, 1, 0.99)
  # As of an emulator: what a restart does differs from a plain environment's resumption.
  environment = deep_sea.make_deep_sea(SIZE)._replace(resumable=False)
  return make_runner(agent, environment, replay, CONFIG, num_eval_episodes=3, devices=jax.devices()[:1])


@pytest.fixture
def task():
  maps = [deep_sea.make_params(SIZE, seed) for seed in (0, 1)]
  return Task(
    name='task',
    environment_name='deep_sea/4',
    agent_name='hyperagent',
    seeds=(0, 1),
    env_params=jax.tree.map(lambda *x: jnp.stack(x), *maps),
    episode_length=None,
    num_envs=1,
    min_replay=8,
    max_interactions=50,
    normalize=lambda x: x,
    columns={},
    on_evaluation=lambda *_: None,
    num_final_episodes=8,
  )


def agent_runner(name):
  """A rival's runner on DeepSea 4, small."""
  system = SYSTEMS[name]
  config = dataclasses.replace(
    system.deep_sea(SIZE), hidden_sizes=(8,), batch_size=4, min_replay=8, replay_capacity=200, ensemble_size=3
  )
  replay = make_replay(200, 1, 1, config.discount)
  return make_runner(system.make(config, 2), deep_sea.make_deep_sea(SIZE), replay, config, devices=jax.devices()[:1])


# Those whose state is unlike HyperAgent's: noise in the optimizer, an index of all members with its weights.
@pytest.mark.parametrize('name', ['adam_lmcdqn', 'bayes_ucbdqn'])
@pytest.mark.slow
def test_a_rival_that_is_resumed_is_bit_for_bit_the_one_never_stopped(name, task, tmp_path):
  runner = agent_runner(name)
  start = lambda: runner.prefill(runner.init(task.seeds, task.env_params), 8)
  whole = runner.run(runner.run(start(), 15), 15)
  checkpoint.save(str(tmp_path / 'kept'), 15, runner.run(start(), 15), SETTINGS, {})
  restored = checkpoint.restore(
    str(tmp_path / 'kept'), runner.shape(task.seeds, task.env_params), SETTINGS, pytest.fail
  )
  resumed = runner.run(runner.place(restored.state, task.env_params), 15)
  as_numbers = lambda state: state._replace(key=jax.random.key_data(state.key))
  jax.tree.map(np.testing.assert_array_equal, as_numbers(resumed), as_numbers(whole))
  assert int(whole.learner.num_updates) == 30


class StopAt:
  """Asks to stop from the n-th question on, counted from 1; 0: never."""

  received = None

  def __init__(self, number):
    self.number, self.asked = number, 0

  def nothing_to_save(self):
    return contextlib.nullcontext()

  saving = nothing_to_save

  def stop(self):
    self.asked += 1
    return (OUT_OF_TIME, '--max_minutes') if 0 < self.number <= self.asked else None


def files(folder, stop_at, resume):
  folder.mkdir(exist_ok=True)
  path = folder / 'results.csv'
  columns = ('seed', 'iteration', 'env_step', 'eval_episode_return', 'train_episode_return', 'loss', 'grad_norm')
  found = checkpoint.latest(checkpoints_of(folder, 'task')) if resume else None
  results = ResultsWriter(str(path), columns, {'task': found[1]['record']['rows']} if found else None)
  nowhere = python_types.SimpleNamespace(show=lambda *_, **__: None)
  return Files(folder, results, TensorBoard('', False), SETTINGS, StopAt(stop_at), nowhere)


def rows(folder):
  return (folder / 'results.csv').read_text().splitlines()


# Within or after evaluations at steps 20, 40 and 50, and three rounds of final episodes.
@pytest.mark.parametrize('stop_at', [1, 2, 3, 5, 7, 8])
@pytest.mark.slow
def test_a_run_stopped_anywhere_is_finished_by_the_next_one(runner, task, tmp_path, stop_at):
  with pytest.raises(Stopped) as e:
    train(task, runner, RUN, files(tmp_path, stop_at, resume=False), resume=False, started=0.0)
  assert e.value.status == OUT_OF_TIME and '--resume' in str(e.value)
  assert finished_history(tmp_path, 'task') is None
  before = rows(tmp_path)
  final_before = checkpoint.latest(checkpoints_of(tmp_path, 'task'))[1]['record']['history']['final']
  history, _ = train(task, runner, RUN, files(tmp_path, 0, resume=True), resume=True, started=0.0)
  assert rows(tmp_path)[: len(before)] == before
  assert [row.split(',')[1] for row in rows(tmp_path)[1::2]] == ['0', '1', '2', '3']
  assert [len(returns) for returns in history.final] == [8, 8]
  if final_before:  # what had been played is not played again
    assert [new[: len(old)] for new, old in zip(history.final, final_before, strict=True)] == final_before
  assert finished_history(tmp_path, 'task') == history


class Asked(StopAt):
  """Stops as on a signal, also within evaluations."""

  @property
  def received(self):
    return 15 if self.stop() else None


@pytest.mark.parametrize('every', [1, 2, 3])
@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_within_intervals_writes_the_rows_of_one_never_stopped(
  task, tmp_path, monkeypatch, every
):
  """Its environment can be kept, so the rows are the same, losses and returns of the interval's training included."""
  runner = agent_runner('ddqn')
  task = dataclasses.replace(task, num_final_episodes=0, episode_length=SIZE)
  whole, _ = train(task, runner, RUN, files(tmp_path / 'whole', 0, resume=False), resume=False, started=0.0)
  monkeypatch.setattr(training, 'FIRST_CHUNK', 7)
  number, within = 0, set()
  while True:
    mine = files(tmp_path / 'parts', every, resume=number > 0)
    mine.signals = Asked(every if number % 2 else 2 * every)
    try:
      history, _ = train(task, runner, RUN, mine, resume=number > 0, started=0.0)
      break
    except Stopped:
      number += 1
      record = checkpoint.latest(checkpoints_of(tmp_path / 'parts', 'task'))[1]['record']['history']
      within |= {name for name in ('within', 'unevaluated') if record[name]}
      assert number < 100
  assert number >= 2 and {1: 'within', 2: 'unevaluated', 3: 'unevaluated'}[every] in within
  assert rows(tmp_path / 'parts') == rows(tmp_path / 'whole')
  assert history.num_episodes == whole.num_episodes and history.mean_return == whole.mean_return


def test_the_best_parameters_are_those_of_the_best_evaluation(runner, task, tmp_path):
  seen = []
  keep = lambda state, *_: seen.append(jax.device_get(state.learner.params))
  task = dataclasses.replace(task, on_evaluation=keep)
  history, kept = train(task, runner, RUN, files(tmp_path, 0, resume=False), resume=False, started=0.0)
  table = np.array([[float(x) for x in row.split(',')] for row in rows(tmp_path)[1:]])
  for i, seed in enumerate(task.seeds):
    mine = table[table[:, 0] == seed]
    best = mine[:, 3].max()
    assert history.best_return[i] == pytest.approx(best, abs=1e-6)
    # The latest of equals.
    at = int(np.flatnonzero(mine[:, 3] == best)[-1])
    assert history.best_interactions[i] == mine[at, 2]
    take = lambda tree, i=i: jax.tree.map(lambda x: np.asarray(x)[i], tree)
    jax.tree.map(np.testing.assert_array_equal, take(kept.best), take(seen[at]))
  assert any((np.asarray(x[0]) != np.asarray(y[0])).any() for x, y in zip(*map(jax.tree.leaves, seen[:2]), strict=True))


def test_a_finished_checkpoint_without_arrays_is_remembered_and_refuses_to_be_restored(runner, task, tmp_path):
  history, kept = train(task, runner, RUN, files(tmp_path, 0, resume=False), resume=False, started=0.0)
  folder = checkpoints_of(tmp_path, 'task')
  checkpoint.finish(folder, history.saved_step, {'scores': []})
  assert finished_history(tmp_path, 'task') == history
  assert len(list((tmp_path / 'checkpoints' / 'task').iterdir())) == 1
  with pytest.raises(CheckpointError, match='had finished'):
    checkpoint.restore(folder, kept, SETTINGS, print)


# ------------------------------------------------------------------------------------------------------- several games


def settings(*arguments):
  values = flags.FlagValues()
  define_flags(values)
  values(['atari', *arguments])
  return read_settings(values)


def test_finished_games_are_not_trained_again_and_keep_their_scores(monkeypatch, tmp_path):
  """Three games with a stop before the last: the next call trains that one only."""
  trained = []

  def train_game(game, s, files):
    trained.append(game)
    history = History(final=[[1.0]], saved_step=5, finished=True)
    # Training leaves a checkpoint.
    record = {'history': dataclasses.asdict(history), 'interactions': 5}
    checkpoint.save(checkpoints_of(files.folder, game), 5, {'x': jnp.ones(3)}, {}, record)
    row = dict.fromkeys(atari_report.SCORES_COLUMNS, '') | {'game': game, 'kind': 'final', 'mean_return': '1.0'}
    return history, [row]

  monkeypatch.setattr(atari_training, 'train_game', train_game)
  signals = StopAt(3)
  files_of = lambda game: Files(tmp_path, None, None, {}, signals, None)
  games = '--game=pong,boxing,freeway'
  with pytest.raises(Stopped, match='before freeway'):
    train_games(settings(games), tmp_path, files_of)
  assert trained == ['pong', 'boxing']
  signals.number = 0
  for _ in range(2):
    (tmp_path / 'scores.csv').write_bytes(b'\x89')  # it is written again from the checkpoints
    histories, found = train_games(settings(games, '--resume'), tmp_path, files_of)
    assert trained == ['pong', 'boxing', 'freeway']
    assert list(histories) == ['pong', 'boxing', 'freeway']
    assert [row['game'] for row in found] == ['pong', 'boxing', 'freeway']


# ------------------------------------------------------------------------------------------------------ several stages


def test_stages_go_on_where_the_last_call_stopped(tmp_path):
  stages = atari_stages.plan(dataclasses.replace(atari_stages.StagesConfig(), output_dir=str(tmp_path)))
  statuses = iter([0, OUT_OF_TIME, 0, 0])
  commands = []

  def call(command):
    commands.append(command)
    return next(statuses)

  assert atari_stages.run_stages(stages, tmp_path, 5.0, call)[0] == OUT_OF_TIME
  # The second stage has saved a checkpoint.
  (tmp_path / 'games' / 'checkpoints' / 'pong').mkdir(parents=True)
  (tmp_path / 'games' / 'checkpoints' / 'pong' / '1.json').touch()
  assert atari_stages.run_stages(stages, tmp_path, 5.0, call)[0] == 0
  names = [command[2] for command in commands]
  assert names == ['benchmarks.atari', *['experiments.atari'] * 3]
  assert all('--resume=auto' in command for command in commands[1:])
  assert any(x.startswith('--max_minutes=') for x in commands[1])
  assert '--max_interactions=2000000' in commands[3] and '--game=freeway' in commands[3]
  assert atari_stages.run_stages(stages, tmp_path, 5.0, call) == (0, f'all done, see {tmp_path}')


def test_a_failing_stage_ends_the_call_and_no_time_starts_none(tmp_path):
  stages = atari_stages.plan(atari_stages.StagesConfig())
  status, text = atari_stages.run_stages(stages, tmp_path, 5.0, lambda _: 3)
  assert (status, text) == (1, 'stage throughput ended with status 3')
  assert not list(tmp_path.glob('*.done'))
  (tmp_path / 'throughput.done').touch()
  never = lambda _: pytest.fail('there is no time left')
  assert atari_stages.run_stages(stages, tmp_path, -1.0, never)[0] == OUT_OF_TIME


def test_commands_of_stages_are_flags_that_exist():
  for stage in atari_stages.plan(atari_stages.StagesConfig(arguments='--preset=fast_cpu --num_envs=2'))[1:]:
    s = settings(*atari_stages.command_of(stage, 3.0)[3:])
    assert s.agent.torso == 'data_efficient' and s.agent.num_envs == 2
    assert s.output.max_minutes == 3.0
