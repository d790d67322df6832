"""The Atari binary through its flags: a whole run, a run that is stopped and resumed, every documented error."""

import csv
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

pytest.importorskip('ale_py')

from experiments.atari import report as atari_report
from experiments.atari.settings import define_flags, read_settings
from experiments.atari.training import check_memory, make_agent
from hyperagent_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
  '--game=pong',
  '--preset=fast_cpu',
  '--num_seeds=2',
  '--max_interactions=400',
  '--min_replay=90',
  '--batch_size=4',
  '--hidden_sizes=8',
  '--eval_period=100',
  '--num_eval_episodes=2',
  '--num_final_episodes=3',
  '--num_reference_episodes=1',
  '--max_frames=240',
  '--checkpoint_period=100000',
)


def start(folder, *arguments):
  command = [sys.executable, '-m', 'experiments.atari', *SMALL, f'--output_dir={folder}', *arguments]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(folder, name):
  with open(folder / name, newline='') as f:
    return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def stopped_and_resumed(tmp_path_factory):
  """A run that got SIGTERM after its second evaluation, and went on."""
  folder = tmp_path_factory.mktemp('atari') / 'run'
  with start(folder) as process:
    deadline = time.monotonic() + 240
    while not ((folder / 'results.csv').exists() and len(rows(folder, 'results.csv')) >= 4):
      assert process.poll() is None, process.communicate()[1]
      assert time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
  assert process.returncode == 128 + signal.SIGTERM, err
  assert '--resume' in err.strip().splitlines()[-1]
  before = rows(folder, 'results.csv')
  with start(folder, '--resume') as process:
    out, err = process.communicate(timeout=280)
  assert process.returncode == 0, err
  return folder, before, out


def test_a_resumed_run_goes_on_without_doubled_or_lost_rows(stopped_and_resumed):
  folder, before, _ = stopped_and_resumed
  found = rows(folder, 'results.csv')
  assert found[: len(before)] == before
  assert [(r['seed'], r['iteration']) for r in found] == [(s, i) for i in '01234' for s in '01']
  steps = [int(r['env_step']) for r in found[::2]]
  # Time steps that start an episode, a few in a hundred here, are no interactions.
  for i, step in enumerate(steps[1:], start=1):
    assert 0.9 * 100 * i <= step <= 100 * i
  assert steps[0] <= 100  # the untrained network, after prefilling
  assert all(int(r['frame']) == 4 * int(r['env_step']) for r in found)
  assert {r['environment_name'] for r in found} == {'atari/pong'}


def test_scores_tables_and_files_are_complete(stopped_and_resumed):
  folder, _, out = stopped_and_resumed
  found = rows(folder, 'scores.csv')
  kinds = [(r['kind'], r['seed'], r['action']) for r in found]
  assert kinds[:4] == [('final', '0', ''), ('untrained', '0', ''), ('final', '1', ''), ('untrained', '1', '')]
  assert kinds[4] == ('random', '', '')
  assert [a for kind, _, a in kinds if kind == 'constant'] == ['NOOP', 'FIRE', 'RIGHT', 'LEFT', 'RIGHTFIRE', 'LEFTFIRE']
  assert [r['num_episodes'] for r in found[:5]] == ['3', '2', '3', '2', '1']
  for r in found:
    expected = (float(r['mean_return']) + 20.7) / (14.6 + 20.7)
    assert float(r['normalized_return']) == pytest.approx(expected, abs=2e-3)
  for text in ('human-normalised', 'best constant', 'hyperagent at 2M', 'IQM'):
    assert text in out
  for name in ('figure.png', 'pong.gif', 'config.json'):
    assert (folder / name).stat().st_size > 500
  with np.load(folder / 'best' / 'pong.npz') as best:
    assert best['params/head'].shape == (2, 8, 6, 5)
    assert {name.split('/')[0] for name in best.files} == {'params', 'prior_params'}


def test_the_evaluation_that_was_best_is_the_one_kept(stopped_and_resumed):
  folder, _, _ = stopped_and_resumed
  found = rows(folder, 'results.csv')
  for score in rows(folder, 'scores.csv'):
    if score['kind'] == 'final':
      mine = [r for r in found if r['seed'] == score['seed']]
      best = max(float(r['eval_episode_return']) for r in mine)
      at = {r['env_step'] for r in mine if float(r['eval_episode_return']) == best}
      assert score['env_step'] in at


def test_another_game_in_the_same_folder_is_refused(stopped_and_resumed):
  folder = stopped_and_resumed[0]
  before = (folder / 'results.csv').read_bytes()
  with start(folder, '--resume', '--game=breakout') as process:
    _, err = process.communicate(timeout=120)
  assert process.returncode == 1
  assert err.strip().splitlines() == [
    f'atari: --resume: {folder} was started with other settings: game: pong -> breakout'
  ]
  assert (folder / 'results.csv').read_bytes() == before


def read(*arguments):
  values = flags.FlagValues()
  define_flags(values)
  values(['atari', *arguments])
  return read_settings(values)


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (['--game=Pong'], '--game=Pong: not a game of ale-py; did you mean pong?'),
    (['--game=ALE/MsPacman-v5'], 'did you mean ms_pacman?'),
    (['--game=breakuot'], 'did you mean breakout'),
    (['--game=pong,suite26'], 'names pong twice'),
    (['--game='], 'not a game of ale-py'),
    (['--num_envs=0'], '--num_envs=0: must be at least 1'),
    (['--replay_capacity=1000'], '--min_replay=2000: must be at most replay_capacity=1000'),
    (['--max_interactions=2000'], '--min_replay=2000: must be below --max_interactions'),
    (['--torso=mlp'], '--torso=mlp: must be nature or data_efficient'),
    (['--preset=fast'], '--preset=fast: must be one of atari, atari_published_code, fast_cpu'),
    (['--sticky_actions=1.5'], '--sticky_actions=1.5: must be at most 1'),
    (['--frame_layout=windows'], 'only for --torso=data_efficient'),
    (['--seed_axis=both'], '--seed_axis=both: must be one of auto, map, vmap'),
    (['--pixel_divisor=0'], '--pixel_divisor=0.0: must be at least 0.001'),
    (['--screen_size=20'], '--screen_size=20: must be at least 36'),
    (['--max_abs_reward=-1'], '--max_abs_reward=-1.0: must be at least 0'),
  ],
)
def test_bad_input_is_one_line(arguments, text):
  with pytest.raises(ConfigError) as e:
    read(*arguments)
  assert text in str(e.value)
  assert '\n' not in str(e.value)


def test_more_memory_than_there_is_is_refused_before_anything_is_made():
  settings = read('--num_seeds=200')
  started = time.monotonic()
  with pytest.raises(ConfigError, match=r'200 seeds take about 44[0-9.]* GB of memory .* GB are free'):
    check_memory(settings)
  assert time.monotonic() - started < 20  # the emulators alone would take minutes


def test_flags_depart_from_the_preset():
  s = read('--preset=fast_cpu', '--batch_size=16', '--game=suite26', '--sticky_actions=0.25')
  assert (s.agent.torso, s.agent.batch_size, s.agent.n_step) == ('data_efficient', 16, 10)
  assert len(s.games) == 26
  assert s.to_dict()['ale_repeat_action_probability'] == 0.25
  assert read().agent.torso == 'nature'
  assert read('--preset=atari_published_code').agent.gradient_penalty == 0.01


def test_rivals_play_with_their_changes_to_the_preset():
  s = read('--preset=fast_cpu', '--agent=ddqn', '--epsilon_final=0.02')
  assert (s.agent.torso, s.agent.epsilon_steps, s.agent.epsilon_final) == ('data_efficient', 40_000, 0.02)
  assert 'epsilon_final' in s.to_dict() and 'index_dim' not in s.to_dict()
  agent, _, num_actions = make_agent('pong', s)
  screens = jnp.zeros((4, 84, 84), jnp.uint8)
  learner = jax.eval_shape(agent.init, jax.random.key(0), screens)
  q = jax.eval_shape(agent.posterior, learner, screens)
  assert q.mean.shape == q.std.shape == (num_actions,)
  with pytest.raises(ConfigError, match=r'--agent=hypermodel: cannot play screens'):
    read('--agent=hypermodel')
  with pytest.raises(ConfigError, match=r'--sigma: ddqn has no such setting'):
    read('--agent=ddqn', '--sigma=0.1')


def test_aggregates_leave_out_games_without_reference_scores():
  row = lambda game, seed, x: {'game': game, 'kind': 'final', 'seed': seed, 'normalized_return': x}
  table = atari_report.aggregate_table([row('pong', 0, '0.5'), row('pong', 1, '0.7'), row('tetris', 0, 'nan')])
  assert '1 games' in table and '0.600' in table
  assert 'nothing to aggregate' in atari_report.aggregate_table([row('tetris', 0, 'nan')])
