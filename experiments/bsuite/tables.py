"""Scores of agents on bsuite in words and numbers: read from logs, as rows, as a table, and what is missing."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from bsuite import sweep

from experiments.common.tables import cells, csv_text, format_table
from hyperagent_jax.config import ConfigError
from hyperagent_jax.scores import bsuite as bsuite_scores
from hyperagent_jax.scores.bsuite import IDS, Logs, Score, has_finished, tags_of

COLUMNS = ('agent', 'experiment', 'tags', 'score', 'finished', 'ids')
_BASIC = ('bandit', 'mnist', 'catch', 'mountain_car', 'cartpole')
# Type -> experiments, in the order of bsuite's bar plot.
TYPES = {
  'basic': _BASIC,
  'noise': tuple(f'{name}_noise' for name in _BASIC),
  'scale': tuple(f'{name}_scale' for name in _BASIC),
  'exploration': ('deep_sea', 'deep_sea_stochastic', 'cartpole_swingup'),
  'credit_assignment': ('umbrella_length', 'umbrella_distract', 'discounting_chain'),
  'memory': ('memory_len', 'memory_size'),
}
EXPERIMENTS = tuple(name for names in TYPES.values() for name in names)
NOT_RUN, LEFT_OUT, NONE_YET = 'not run', 'left out', 'none yet'


class Agent(NamedTuple):
  """An agent's logs and what they come to."""

  logs: Logs  # that count
  scores: dict[str, Score]
  tags: dict[str, float]
  missing: str = NOT_RUN  # what to say of the other ids


@contextlib.contextmanager
def _naming(agent: str) -> Iterator[None]:
  """Errors within are one line with the agent's name."""
  try:
    yield
  except OSError as e:
    raise ConfigError(f'agent {agent}: {e.filename}: {e.strerror}') from e
  except ValueError as e:
    raise ConfigError(f'agent {agent}: {e}') from e


def _finished_by_all(logs: Mapping[str, Logs]) -> set[str]:
  """The ids that every agent has played to the end."""
  return set.intersection(*({i for i in of if has_finished(i, of)} for of in logs.values()))


def read_agents(folders: Mapping[str, pathlib.Path], common: bool = False) -> dict[str, Agent]:
  """Reads the logs of each agent, name -> folder, and scores them.

  Args:
    folders: agent's name -> folder of its logs.
    common: leaves out ids that not all agents have played to the end, so that scores compare like with like.

  Raises:
    ConfigError: if there is no agent, the logs of one cannot be read or scored (it names the agent), or agents have no
      id in common that should have.
  """
  if not folders:
    raise ConfigError('no agents: nothing to report')
  logs: dict[str, Logs] = {}
  scores: dict[str, dict[str, Score]] = {}
  for name, folder in folders.items():
    with _naming(name):
      logs[name] = bsuite_scores.read_logs(folder)
      if not logs[name]:
        raise ConfigError(f'no logs of bsuite in {folder}')
      scores[name] = bsuite_scores.scores(logs[name])
  if common:
    wanted = _finished_by_all(logs)
    if not wanted:
      raise ConfigError(f'--common: there is no id that {", ".join(folders)} have all played to the end')
    logs = {name: {i: log for i, log in of.items() if i in wanted} for name, of in logs.items()}
    scores = {name: bsuite_scores.scores(of) for name, of in logs.items()}
  missing = LEFT_OUT if common else NOT_RUN
  return {name: Agent(logs[name], x, bsuite_scores.scores_by_tag(x), missing) for name, x in scores.items()}


def cell(agent: Agent, experiment: str) -> str:
  """A score to two decimals, * where it is not finished, or why there is none."""
  score = agent.scores.get(experiment)
  if score is None:
    return agent.missing
  return NONE_YET if np.isnan(score.score) else f'{score.score:.2f}{"" if score.finished else "*"}'


def is_complete(agent: Agent, tag: str) -> bool:
  """Whether all experiments of a tag are finished."""
  names = [name for name in EXPERIMENTS if tag in tags_of(name)]
  return all(name in agent.scores and agent.scores[name].finished for name in names)


def tag_cell(agent: Agent, tag: str) -> str:
  """A tag's mean score to two decimals, * where one of its experiments is not finished, or why there is none."""
  if tag in agent.tags:
    return f'{agent.tags[tag]:.2f}{"" if is_complete(agent, tag) else "*"}'
  return NONE_YET if any(tag in score.tags for score in agent.scores.values()) else agent.missing


def ids_cell(agent: Agent, experiment: str) -> str:
  """How many of an experiment's ids count, of all."""
  score = agent.scores.get(experiment)
  return f'{score.num_ids if score else 0}/{len(IDS[experiment])}'


def _rows(agents: Mapping[str, Agent]) -> list[dict[str, Any]]:
  """The rows of scores.csv: all experiments for every agent, without a score where there is none."""
  rows = []
  for name, agent in agents.items():
    for experiment in EXPERIMENTS:
      x = agent.scores.get(experiment, Score(float('nan'), False, 0, tags_of(experiment)))
      value = '' if np.isnan(x.score) else f'{x.score:.6f}'
      values = (name, experiment, ' '.join(x.tags), value, int(x.finished), x.num_ids)
      rows.append(dict(zip(COLUMNS, values, strict=True)))
  return rows


def scores_csv(agents: Mapping[str, Agent]) -> bytes:
  """scores.csv."""
  return csv_text(COLUMNS, *(cells(row, COLUMNS) for row in _rows(agents))).encode()


def score_table(agents: Mapping[str, Agent]) -> str:
  """The scores by experiment and by tag as plain text."""
  lines = [(name, *(cell(agent, name) for agent in agents.values())) for name in EXPERIMENTS]
  tags = [(tag, *(tag_cell(agent, tag) for agent in agents.values())) for tag in sweep.TAGS]
  tables = [format_table(('experiment', *agents), lines), format_table(('tag', *agents), tags)]
  return '\n\n'.join([*tables, '* not all ids or episodes'])


def _numbers(numbers: Sequence[int]) -> str:
  """Rising whole numbers with runs of them together: 0-3, 7."""
  starts = [n for n in numbers if n - 1 not in numbers]
  ends = [n for n in numbers if n + 1 not in numbers]
  return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in zip(starts, ends, strict=True))


def lacking(agent: Agent) -> list[str]:
  """A line for each experiment that is not finished: which ids have no log that counts, which not all episodes."""
  lines = []
  for experiment in EXPERIMENTS:
    ids = IDS[experiment]
    missing = [i for i, x in enumerate(ids) if x not in agent.logs]
    begun = [i for i, x in enumerate(ids) if x in agent.logs and not has_finished(x, agent.logs)]
    if len(missing) == len(ids):
      lines.append(f'{experiment}: {agent.missing}')
      continue
    parts = [f'{len(missing)} of {len(ids)} ids {agent.missing} ({_numbers(missing)})'] if missing else []
    parts += [f'{len(begun)} with fewer than {sweep.EPISODES[ids[0]]:,} episodes ({_numbers(begun)})'] if begun else []
    lines += [f'{experiment}: {"; ".join(parts)}'] if parts else []
  return lines
