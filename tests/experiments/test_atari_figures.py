"""Figures of Atari runs from made-up results; the published curves against numbers read off the file."""

import csv
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments.atari import figures as atari_figures
from experiments.common.plotting import redraw
from experiments.common.tables import read_table

RESULTS = ('environment_name', 'agent_name', 'seed', 'frame', 'env_step', 'eval_episode_return', 'game', 'loss')
SCORES = (
  'game',
  'kind',
  'seed',
  'num_episodes',
  'mean_return',
  'std_return',
  'normalized_return',
  'env_step',
  'action',
)


def write(path, columns, rows):
  with open(path, 'w', newline='') as file:
    writer = csv.DictWriter(file, columns, restval='')
    writer.writeheader()
    writer.writerows(rows)


def write_run(folder, games, num_seeds, with_scores):
  """Six evaluations of each game and seed; the first has no loss."""
  write(
    folder / 'results.csv',
    RESULTS,
    [
      {
        'environment_name': f'atari/{game}',
        'agent_name': 'hyperagent',
        'game': game,
        'seed': seed,
        'frame': 4 * step,
        'env_step': step,
        'eval_episode_return': seed + step / 1000,
        'loss': 0.1 if step else '',
      }
      for step in range(0, 120_000, 20_000)
      for game in games
      for seed in range(num_seeds)
    ],
  )
  if with_scores:
    rows = []
    for game in games:
      rows += [{'game': game, 'kind': 'final', 'seed': x, 'mean_return': 90 + x, 'env_step': 100_000} for x in range(2)]
      rows += [{'game': game, 'kind': 'random', 'mean_return': 1.5, 'env_step': 0}]
      rows += [{'game': game, 'kind': 'constant', 'mean_return': x, 'env_step': 0, 'action': x} for x in range(3)]
    write(folder / 'scores.csv', SCORES, rows)


@pytest.fixture
def figure(monkeypatch):
  """The figures that are saved, to look into."""
  figures, save = [], atari_figures.save_figure
  monkeypatch.setattr(atari_figures, 'save_figure', lambda path, x: figures.append(x) or save(path, x))
  return lambda: figures[-1]


def labels(axis):
  return set(axis.get_legend_handles_labels()[1])


def test_one_game_with_scores(tmp_path, figure):
  write_run(tmp_path, ['hero'], 2, with_scores=True)
  path = atari_figures.draw_learning_curves(str(tmp_path))
  assert path == str(tmp_path / 'figure.png')
  with Image.open(path) as image:
    assert image.width == 1125
  (axis,) = figure().axes
  assert axis.get_title() == 'Hero, 2 seeds'
  assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xlim()) == ('interactions', 'evaluation return', (0, 100_000))
  assert {'mean of seeds', 'final score of a seed', 'random policy', 'best constant action'} <= labels(axis)
  assert {'HyperAgent, published', 'HyperDQN, published'} <= labels(axis)
  # SANE's first evaluation is after the run's end, and the human's score far above.
  assert not {'SANE, published', 'human, published', 'random policy, published'} & labels(axis)
  assert axis.texts[0].get_text().startswith('human\xa030,826; published at 2M: HyperAgent\xa012,325')
  lines = {line.get_label(): line for line in axis.lines}
  np.testing.assert_allclose(lines['mean of seeds'].get_ydata(), 0.5 + np.arange(0, 120, 20))
  assert set(lines['best constant action'].get_ydata()) == {2.0}
  hero = [returns[1] for _, returns in atari_figures.published_curves()['hyperagent']['hero'].values()]
  assert lines['HyperAgent, published'].get_xdata()[1] == 20_000
  assert lines['HyperAgent, published'].get_ydata()[1] == pytest.approx(np.mean(hero))


def test_three_games_without_scores_and_a_torn_line(tmp_path, figure):
  write_run(tmp_path, ['pong', 'no_such_game', 'breakout'], 1, with_scores=False)
  with open(tmp_path / 'results.csv', 'a') as file:
    file.write('atari/pong,hyperagent,0,480000,1200')
  atari_figures.draw_learning_curves(str(tmp_path))
  pong, unknown, breakout = figure().axes
  assert [axis.get_title() for axis in figure().axes] == ['Pong, 1 seed', 'No Such Game, 1 seed', 'Breakout, 1 seed']
  assert labels(unknown) == {'one seed'}
  assert {'one seed', 'random policy, published', 'human, published'} <= labels(breakout)
  assert pong.get_xlim() == (0, 100_000)


def test_a_line_torn_in_a_number_is_left_out(tmp_path):
  write_run(tmp_path, ['pong'], 1, with_scores=False)
  whole = (tmp_path / 'results.csv').read_text()
  (tmp_path / 'results.csv').write_text(whole + whole.splitlines()[-1].replace('100000', '120000')[:-2])
  rows = read_table(str(tmp_path / 'results.csv'), RESULTS)
  assert [row['env_step'] for row in rows] == [str(step) for step in range(0, 120_000, 20_000)]


@pytest.mark.parametrize('num_games', [4, 7])
def test_unused_panels_are_hidden(tmp_path, figure, num_games):
  write_run(tmp_path, [f'game_{number}' for number in range(num_games)], 1, with_scores=False)
  atari_figures.draw_learning_curves(str(tmp_path))
  axes = figure().axes
  assert sum(axis.get_visible() for axis in axes) == num_games
  assert axes[0].get_subplotspec().get_gridspec().ncols == {4: 2, 7: 4}[num_games]


@pytest.mark.parametrize(
  'text, message',
  [
    (None, 'results.csv: No such file or directory'),
    ('seed,env_step\r\n0,0\r\n', 'results.csv: no column game, eval_episode_return'),
    ('game,seed,env_step,eval_episode_return\r\n', 'results.csv: no evaluations yet'),
    ('game,seed,env_step,eval_episode_return\r\npong,0,0,\r\n', 'results.csv: no evaluations yet'),
    ('game,seed,env_step,eval_episode_return\r\npong,0,0,many\r\n', "'many'"),
  ],
)
def test_bad_files_are_one_line(capsys, tmp_path, text, message):
  if text is not None:
    (tmp_path / 'results.csv').write_text(text)
  with pytest.raises(SystemExit) as stop:
    redraw('atari_figures', atari_figures.draw_all, str(tmp_path))
  assert stop.value.code == 1
  error = capsys.readouterr().err
  assert error.startswith('atari_figures: ')
  assert message in error
  assert error.count('\n') == 1


def test_binary(tmp_path):
  write_run(tmp_path, ['pong'], 1, with_scores=True)
  command = [sys.executable, '-m', 'experiments.atari_figures', f'--output_dir={tmp_path}']
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert (done.returncode, done.stdout) == (0, f'{tmp_path / "figure.png"}\n'), done.stderr


def test_published_curves():
  curves = atari_figures.published_curves()
  assert {agent: len(games) for agent, games in curves.items()} == {'hyperagent': 8, 'hyperdqn': 49, 'sane': 8}
  interactions, returns = curves['hyperagent']['hero'][2028]
  assert (interactions[1], returns[1]) == (20_000, 2366.5)  # frame 80 000
  assert (len(returns), interactions[-1]) == (101, 2_000_000)
  assert (np.diff(interactions) == 20_000).all()
  assert set(curves['hyperdqn']['pong']) == {2021, 2022, 2023}
  assert curves['hyperdqn']['pong'][2021][0, 1] == 50_000
  assert curves['sane']['hero'][0][0, 1] == 500_000


def game(num_steps=12, num_actions=4, colours=100):
  """Noise in as many colours as asked for, an even drift of values, and a reward in every step."""
  rng = np.random.default_rng(0)
  palette = rng.integers(256, size=(colours, 3), dtype=np.uint8)
  mean = np.linspace(0, 1, num_steps)[:, None] + rng.normal(size=(num_steps, num_actions))
  return {
    'screens': palette[rng.integers(colours, size=(num_steps, 210, 160))],
    'mean': mean,
    'std': np.full_like(mean, 0.2),
    'actions': mean.argmax(1),
    'action_names': [f'ACTION{number}' for number in range(num_actions)],
    'rewards': np.ones(num_steps),
  }


@pytest.mark.parametrize('num_actions', [1, 18])
def test_gif_has_a_frame_per_step(tmp_path, num_actions):
  played = game(num_actions=num_actions)
  path = atari_figures.draw_game(str(tmp_path / 'game.gif'), **played)
  frames = []
  with Image.open(path) as image:
    assert image.n_frames == 12
    assert image.info['loop'] == 0
    for number in range(image.n_frames):
      image.seek(number)
      frames.append(np.array(image.convert('RGB')))
      assert image.info['duration'] == (2500 if number == 11 else 70)
  frames = np.stack(frames)
  assert frames.shape == (12, 420, 680, 3)
  # The screens are whole, at twice the size; PIL matches colours to a few of 256 levels.
  assert np.abs(frames[:, ::2, :320:2].astype(int) - played['screens']).max() <= 8
  assert (frames[:, :, 320:330] > 250).all()
  assert all((first[:, 332:] != second[:, 332:]).any() for first, second in itertools.pairwise(frames))
  assert list(tmp_path.iterdir()) == [tmp_path / 'game.gif']


def test_gif_of_many_colours_and_equal_values(tmp_path):
  played = game(num_steps=2, colours=1000)
  played |= {'mean': np.zeros((2, 4)), 'std': np.zeros((2, 4)), 'rewards': np.array([-1.5, 2000.0])}
  with Image.open(atari_figures.draw_game(str(tmp_path / 'game.gif'), **played)) as image:
    assert image.n_frames == 2


@pytest.mark.parametrize('name, rows', [('mean', 11), ('std', 11), ('actions', 11), ('rewards', 11), ('screens', 0)])
def test_gif_of_other_shapes_is_refused(tmp_path, name, rows):
  played = game()
  with pytest.raises(ValueError, match='12 screens' if rows else '0 screens'):
    atari_figures.draw_game(str(tmp_path / 'game.gif'), **(played | {name: played[name][:rows]}))
