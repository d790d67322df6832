"""bsuite's scores (Osband et al. 2020, "Behaviour Suite for Reinforcement Learning", arXiv 1908.03568).

    logs = read_logs('runs/bsuite/hyperagent')
    of_experiment = scores(logs)
    of_tag = scores_by_tag(of_experiment)

The formulas are those of bsuite 0.3.5's `analysis` modules. Of a run that is not finished, bsuite scores what there is:
T below is the experiment's number of episodes or, if none of the ids has got so far, the last episode any of them has
logged, and only the ids that have logged episode T count. Episodes beyond the experiment's number never count.

A score is nan where bsuite has none yet: mnist's, until the last tenth of the episodes, and deep_sea_stochastic's
before episode 100.

Imported by its name, since it needs bsuite.
"""

import csv
import dataclasses
import difflib
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from bsuite import sweep
from numpy.typing import ArrayLike

from hyperagent_jax.envs.bsuite import experiments, parse_ids

Logs = Mapping[str, Mapping[str, ArrayLike]]  # bsuite id -> column -> [rows]

IDS = {experiment: tuple(parse_ids(experiment)) for experiment in experiments()}
# Regret per episode at which the score is 0; a perfect agent has none.
BASE_REGRETS = {
  'bandit': 0.5,
  'catch': 1.6,
  'mnist': 1.8,
  'mountain_car': 1000.0,
  'cartpole': 1000.0,
  'cartpole_swingup': 700.0,
}
FILE_PREFIX, _SEPARATOR = 'bsuite_id_-_', '-'  # bsuite_id_-_catch-0.csv
LOG_FILES = f'{FILE_PREFIX}*.csv'


class Score(NamedTuple):
  """An experiment's score and what it rests on."""

  score: float  # in [0, 1], or nan where there is none yet
  finished: bool  # whether all ids of the experiment have all their episodes
  num_ids: int  # that have a log
  tags: tuple[str, ...]  # the first is what bsuite's bar plot sorts it under


@dataclasses.dataclass(frozen=True)
class _Run:
  """An id's log up to the last episode that counts."""

  bsuite_id: str
  log: Mapping[str, ArrayLike]

  def __getitem__(self, column: str) -> np.ndarray:
    """The column [rows]."""
    for name in ('episode', column):
      if name not in self.log:
        raise ValueError(f'{self.bsuite_id}: the log has no column {name}')
    return np.asarray(self.log[column], np.float64)[np.asarray(self.log['episode']) <= sweep.EPISODES[self.bsuite_id]]


Quantity = Callable[[_Run], np.ndarray]  # an id's [rows]
Formula = Callable[[Sequence[_Run]], float]

# ------------------------------------------------------------------------------------------------------------- formulas


def _by_setting(runs: Sequence[_Run], name: str) -> list[list[_Run]]:
  """The runs, those together for which a setting has the same value."""
  groups: dict[float, list[_Run]] = {}
  for run in runs:
    groups.setdefault(sweep.SETTINGS[run.bsuite_id][name], []).append(run)
  return list(groups.values())


def _per_episode(runs: Sequence[_Run], quantity: Quantity) -> float:
  """Q(T) / T: what a total has come to by episode T, a mean over the ids that have logged it."""
  end = max(run['episode'].max() for run in runs)
  return float(np.concatenate([quantity(run)[run['episode'] == end] for run in runs]).mean() / end)


def _regret_score(runs: Sequence[_Run], base: float, regret: Quantity) -> float:
  """(B - R(T) / T) / B in [0, 1], with base B and total regret R."""
  return float(np.clip((base - _per_episode(runs, regret)) / base, 0, 1))


def _solved(runs: Sequence[_Run], threshold: float) -> float:
  """The fraction of ids whose best episode is above the threshold."""
  return float(np.mean([run['best_episode'].max() > threshold for run in runs]))


def _regret(experiment: str) -> Formula:
  """bandit, catch: (B - R(T) / T) / B in [0, 1] with R = total_regret."""
  return lambda runs: _regret_score(runs, BASE_REGRETS[experiment], lambda run: run['total_regret'])


def _mountain_car(runs: Sequence[_Run]) -> float:
  """(B - R(T) / T) / B in [0, 1] with R = -100 episode - raw_return: 100 steps an episode are without regret."""
  return _regret_score(runs, BASE_REGRETS['mountain_car'], lambda run: -100 * run['episode'] - run['raw_return'])


def _cartpole(runs: Sequence[_Run]) -> float:
  """Half (B - R(T) / T) / B in [0, 1] with R = B episode - raw_return, half the ids with an episode above 500."""
  base = BASE_REGRETS['cartpole']
  regret = _regret_score(runs, base, lambda run: base * run['episode'] - run['raw_return'])
  return 0.5 * (regret + _solved(runs, 500))


def _swingup(runs: Sequence[_Run]) -> float:
  """The mean over height thresholds of half (B - R(T) / T) / B in [0, 1], half the ids with an episode above 100.

  R = B episode - total_return.
  """
  base = BASE_REGRETS['cartpole_swingup']
  regret = lambda run: base * run['episode'] - run['total_return']
  groups = _by_setting(runs, 'height_threshold')
  return float(np.mean([0.5 * (_regret_score(group, base, regret) + _solved(group, 100)) for group in groups]))


def _mnist(runs: Sequence[_Run]) -> float:
  """Half (B - R(T) / T) / B in [0, 1] with R = total_regret, half the accuracy in the last tenth of the episodes.

  The accuracy is the mean of (average return + 1) / 2 over the rows of all ids there, where a row's average return is
  1 - the regret per episode since the row before.
  """
  accuracies = []
  for run in runs:
    late = run['episode'][1:] > 0.9 * sweep.EPISODES[run.bsuite_id]
    returns = 1 - np.diff(run['total_regret']) / np.diff(run['episode'])
    accuracies += [*(returns[late] + 1) / 2]
  accuracy = float(np.mean(accuracies)) if accuracies else float('nan')
  return 0.5 * (_regret('mnist')(runs) + accuracy)


def _deep_sea(threshold: float, first_episode: int = 0) -> Formula:
  """The fraction of ids that are solved before episode 2^size + 100.

  An id is solved at its first row, from `first_episode` on, where total_bad_episodes / episode is below the threshold.
  Ids that have no row there do not count.
  """

  def formula(runs: Sequence[_Run]) -> float:
    beaten = []
    for run in runs:
      episode, bad = (run[column][run['episode'] >= first_episode] for column in ('episode', 'total_bad_episodes'))
      solved = episode[bad / episode < threshold]
      beaten += [bool(np.any(solved < 2 ** sweep.SETTINGS[run.bsuite_id]['size'] + 100))] if len(episode) else []
    return float(np.mean(beaten)) if beaten else float('nan')

  return formula


def _discounting(runs: Sequence[_Run]) -> float:
  """1 - 10 (1.1 - total_return(T) / T) in [0, 1]: 1.1 is the best return, and 1 that of the other chains."""
  return float(np.clip(1 - 10 * (1.1 - _per_episode(runs, lambda run: run['total_return'])), 0, 1))


def _fraction_below(setting: str, quantity: Quantity, threshold: float) -> Formula:
  """The fraction of a setting's values for which Q(T) / T is below a threshold; every value has its own T."""
  return lambda runs: float(np.mean([_per_episode(x, quantity) < threshold for x in _by_setting(runs, setting)]))


def _memory(setting: str) -> Formula:
  """The fraction of lengths or sizes with 2 (episode - total_perfect) / T below 0.75; at random it is 1."""
  return _fraction_below(setting, lambda run: (run['episode'] - run['total_perfect']) / 0.5, 0.75)


def _umbrella(setting: str) -> Formula:
  """The fraction of chain lengths or numbers of distractors with total_regret(T) / T below 0.5; at random it is 1."""
  return _fraction_below(setting, lambda run: run['total_regret'], 0.5)


def _robust(formula: Formula, setting: str) -> Formula:
  """Half m, half m - s, each in [0, 1]: m and s are mean and standard deviation over noise or reward scales.

  Each scale is scored on its own, as the experiment without noise or scale is.
  """

  def robust(runs: Sequence[_Run]) -> float:
    each = [formula(group) for group in _by_setting(runs, setting)]
    mean, lower = np.clip([np.mean(each), np.mean(each) - np.std(each)], 0, 1)
    return float(0.5 * (mean + lower))

  return robust


_BASIC: dict[str, Formula] = {
  'bandit': _regret('bandit'),
  'mnist': _mnist,
  'catch': _regret('catch'),
  'mountain_car': _mountain_car,
  'cartpole': _cartpole,
}
_FORMULAS: dict[str, Formula] = {
  **_BASIC,
  **{f'{name}_noise': _robust(formula, 'noise_scale') for name, formula in _BASIC.items()},
  **{f'{name}_scale': _robust(formula, 'reward_scale') for name, formula in _BASIC.items()},
  'deep_sea': _deep_sea(0.9),
  # The wind can spare an agent bad episodes: few are believed only later, and fewer have to be bad.
  'deep_sea_stochastic': _deep_sea(0.8, first_episode=100),
  'cartpole_swingup': _swingup,
  'umbrella_length': _umbrella('chain_length'),
  'umbrella_distract': _umbrella('n_distractor'),
  'discounting_chain': _discounting,
  'memory_len': _memory('memory_length'),
  'memory_size': _memory('num_bits'),
}

# --------------------------------------------------------------------------------------------------------------- scores


def tags_of(experiment: str) -> tuple[str, ...]:
  """An experiment's tags in bsuite's order; the first is its type."""
  return tuple(getattr(sweep, f'{experiment}_sweep').TAGS)  # `sweep.TAGS` does not say which is the first


def _runs(experiment: str, logs: Logs) -> list[_Run]:
  if experiment not in _FORMULAS:
    near = difflib.get_close_matches(experiment, _FORMULAS)
    advice = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(IDS)}'
    raise ValueError(f'{experiment!r}: no such experiment; {advice}')
  runs = [_Run(bsuite_id, logs[bsuite_id]) for bsuite_id in IDS[experiment] if bsuite_id in logs]
  if not runs:
    raise ValueError(f'{experiment}: no logs')
  for run in runs:
    if not len(run['episode']):
      raise ValueError(f'{run.bsuite_id}: the log has no episodes')
  return runs


def score(experiment: str, logs: Logs) -> float:
  """An experiment's score by bsuite's definition.

  Args:
    experiment: such as catch_noise.
    logs: bsuite id -> column -> values [rows] in the order of episodes; ids of other experiments are not read.

  Returns:
    A number from 0 to 1, or nan where bsuite has no score yet.

  Raises:
    ValueError: if there is no such experiment, none of its ids has a log, or a log has no episodes or lacks a column.
  """
  runs = _runs(experiment, logs)
  return _FORMULAS[experiment](runs)


def has_finished(bsuite_id: str, logs: Logs) -> bool:
  """Whether an id has a log that goes to its last episode."""
  return bsuite_id in logs and bool(np.max(logs[bsuite_id]['episode']) >= sweep.EPISODES[bsuite_id])


def _is_finished(experiment: str, logs: Logs) -> bool:
  """Stricter than bsuite, which does not ask for ids without a log."""
  return all(has_finished(i, logs) for i in IDS[experiment])


def scores(logs: Logs) -> dict[str, Score]:
  """The scores of all experiments of which an id has a log, in the order of bsuite's sweep.

  Args:
    logs: bsuite id -> column -> values [rows] in the order of episodes.

  Raises:
    ValueError: if there are no logs, one is of an unknown id, has no episodes or lacks a column.
  """
  if not logs:
    raise ValueError('logs: none')
  for bsuite_id in logs:
    if bsuite_id not in sweep.SETTINGS:
      raise ValueError(f'{bsuite_id}: no such bsuite id')
  results = {}
  for experiment, ids in IDS.items():
    num_ids = sum(i in logs for i in ids)
    if num_ids:
      value = score(experiment, logs)
      results[experiment] = Score(value, _is_finished(experiment, logs), num_ids, tags_of(experiment))
  return results


def scores_by_tag(of_experiments: Mapping[str, Score]) -> dict[str, float]:
  """Tag -> mean score of its experiments, as in bsuite's radar; without tags none of whose experiments has a score."""
  results = {}
  for tag in sweep.TAGS:
    values = [x.score for x in of_experiments.values() if tag in x.tags and not np.isnan(x.score)]
    if values:
      results[tag] = float(np.mean(values))
  return results


# ---------------------------------------------------------------------------------------------------------------- files


def read_log(path: pathlib.Path) -> dict[str, np.ndarray]:
  """A log that bsuite's CSV logger, or one that writes alike, has left: column -> values [rows].

  A last line that is not whole is not read.

  Raises:
    ValueError: if it is no such log; it names the file.
  """
  try:
    text = path.read_text()
    header, *rows = list(csv.reader(io.StringIO(text[: text.rfind('\n') + 1]))) or [[]]
    values = np.array([[float(x) for x in row] for row in rows]).reshape(len(rows), len(header))
  except (ValueError, csv.Error):
    raise ValueError(f'{path}: not a log of bsuite: must be a header and rows of as many numbers') from None
  if header and 'episode' not in header:
    raise ValueError(f'{path}: not a log of bsuite: it has no column episode')
  return dict(zip(header, values.T, strict=True))


def log_file(bsuite_id: str) -> str:
  """The name of an id's log."""
  return f'{FILE_PREFIX}{bsuite_id.replace("/", _SEPARATOR)}.csv'


def read_logs(folder: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
  """The logs that bsuite's CSV logger, or one that writes alike, has left in a folder.

  Files with other names are not read, nor is a last line that is not whole. A log without a row is left out.

  Returns:
    bsuite id -> column -> values [rows], in the order of bsuite's sweep; empty if there are none.

  Raises:
    ValueError: if a file is of an unknown id or is no such log; it names the file.
    OSError: if the folder or a file cannot be read.
  """
  logs = {}
  for path in pathlib.Path(folder).iterdir():
    if not (path.name.startswith(FILE_PREFIX) and path.suffix == '.csv'):
      continue
    bsuite_id = path.stem.removeprefix(FILE_PREFIX).replace(_SEPARATOR, '/')
    if bsuite_id not in sweep.SETTINGS:
      raise ValueError(f'{path}: {bsuite_id} is no bsuite id')
    log = read_log(path)
    if len(next(iter(log.values()), ())):
      logs[bsuite_id] = log
  return {bsuite_id: logs[bsuite_id] for bsuite_id in sweep.SWEEP if bsuite_id in logs}
