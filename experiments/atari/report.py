"""What an Atari run reports: scores.csv, a table per game beside published scores, and aggregates over games."""

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.tables import cells, format_table, write_table
from experiments.common.task import History
from hyperagent_jax import scores

SCORES_COLUMNS = (
  *('game', 'kind', 'seed', 'action', 'num_episodes', 'mean_return', 'std_return', 'normalized_return', 'env_step'),
)


def normalized(game: str, episode_return: float) -> float:
  """The human-normalised score, nan for games without published reference scores."""
  if game not in scores.atari_scores():
    return float('nan')
  return float(scores.human_normalized(game, episode_return))


def score_rows(
  game: str, history: History, references: dict[str, list[float]], seeds: Sequence[int]
) -> list[dict[str, Any]]:
  """A game's rows of scores.csv: final and untrained for every seed, and the references."""

  def row(kind: str, returns: Sequence[float], seed: Any = '', action: str = '', env_step: Any = '') -> dict[str, Any]:
    mean = float(np.mean(returns))
    return {
      'game': game,
      'kind': kind,
      'seed': seed,
      'action': action,
      'num_episodes': len(returns),
      'mean_return': f'{mean:.3f}',
      'std_return': f'{np.std(returns):.3f}',
      'normalized_return': f'{normalized(game, mean):.4f}',
      'env_step': env_step,
    }

  rows = []
  for i, seed in enumerate(seeds):
    rows.append(row('final', history.final[i], seed, env_step=history.best_interactions[i]))
    rows.append(row('untrained', history.untrained[i], seed))
  for name, returns in references.items():
    rows.append(row('random', returns) if name == 'random' else row('constant', returns, action=name))
  return rows


def write_scores(folder: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
  """Writes scores.csv whole."""
  write_table(folder / 'scores.csv', SCORES_COLUMNS, (cells(row, SCORES_COLUMNS) for row in rows))


def read_scores(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of scores.csv, none if there is no such file."""
  path = folder / 'scores.csv'
  if not path.exists():
    return []
  with path.open(newline='', errors='replace') as file:
    return list(csv.DictReader(file))


def _number(x: float | np.floating | None) -> str:
  return '-' if x is None or not np.isfinite(x) else f'{x:,.1f}'


def game_table(rows: Sequence[dict[str, Any]], histories: Mapping[str, History]) -> str:
  """A line for each game: the final scores, and what they are to be compared with, measured here."""
  header = (
    *('game', 'seeds', 'final', 'min', 'max', 'untrained', 'random', 'best constant', 'human-normalised'),
    *('steps/s', 'hours'),
  )
  lines = []
  for game, history in histories.items():
    of = lambda kind, game=game: [float(r['mean_return']) for r in rows if r['game'] == game and r['kind'] == kind]
    final = of('final')
    ours = (np.mean(final), min(final), max(final), np.mean(of('untrained')))
    others = (max(of(kind), default=None) for kind in ('random', 'constant'))
    cells = (game, len(final), *map(_number, (*ours, *others)), f'{np.mean([normalized(game, x) for x in final]):.3f}')
    lines.append((*cells, f'{history.steps_per_second:,.0f}', f'{history.seconds / 3600:.2f}'))
  note = (
    "Final: fresh games with the parameters of each seed's best evaluation, the untrained one included; mean over "
    'seeds.\nscores.csv has the number of games behind each mean, fewer for untrained, random and constant.\n'
    'Steps/s: interactions of all seeds per second, without compilation and evaluation; hours: everything.'
  )
  return format_table(header, lines) + '\n' + note


def published_table(rows: Sequence[dict[str, Any]], games: Sequence[str], max_interactions: int) -> str:
  """Final scores beside the published ones."""
  methods = ('hyperagent', 'hyperdqn', 'rainbow', 'der', 'ddqn_dagger')
  header = ('game', f'ours at {max_interactions:,}', *(f'{method} at 2M' for method in methods), 'human', 'random')
  lines = []
  for game in games:
    final = np.mean([float(r['mean_return']) for r in rows if r['game'] == game and r['kind'] == 'final'])
    known = scores.atari_scores().get(game)
    published = [known and known.published.get(method) for method in methods]
    lines.append((game, *map(_number, (final, *published, known and known.human, known and known.random))))
  note = 'Published: Tables 7 and 9 of arXiv 2402.10228, after 2,000,000 interactions.'
  return format_table(header, lines) + '\n' + note


def aggregate_table(rows: Sequence[dict[str, Any]]) -> str:
  """IQM, median and mean of human-normalised scores over runs and games with 95% stratified bootstrap intervals."""
  by_game: dict[str, list[float]] = {}
  for row in rows:
    if row['kind'] == 'final' and np.isfinite(float(row['normalized_return'])):
      by_game.setdefault(row['game'], []).append(float(row['normalized_return']))
  if not by_game:
    return 'no game with published human and random scores: nothing to aggregate'
  several = max(map(len, by_game.values())) > 1
  aggregates = {'IQM': scores.interquartile_mean, 'median': scores.median, 'mean': scores.mean}
  lines = []
  for name, aggregate in aggregates.items():
    interval = scores.stratified_bootstrap(by_game, aggregate)
    # One run of each game says nothing about the spread between runs.
    bounds = (f'{x:.3f}' if several else '-' for x in (interval.low, interval.high))
    lines.append((name, f'{interval.point:.3f}', *bounds))
  return format_table((f'human-normalised, {len(by_game)} games', 'score', '95% low', 'high'), lines)
