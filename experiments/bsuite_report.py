"""What bsuite runs come to: scores.csv, a table, a radar by tag, bars by experiment, and a page with all of it.

    python -m experiments.bsuite_report --output_dir=runs/bsuite --agents=hyperagent=runs/a,ddqn=runs/b

An agent's folder holds logs as bsuite's CSV logger writes them. It need not be finished: what was not run is named, and
never shown as a score of zero.
"""

import base64
import csv
import html
import io
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from bsuite import sweep
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments import run as run_lib
from experiments.posterior_figures import DARK, save_figure
from experiments.studies.figures import COLOURS, GREY, MARKERS
from hyperagent_jax import bsuite_scores, metrics
from hyperagent_jax.bsuite_scores import IDS, Logs, Score, tags_of
from hyperagent_jax.checkpoint import write_atomically
from hyperagent_jax.config import ConfigError

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
_WIDTH, _BAR, _ROW = 8.5, 0.16, 0.26  # inches: of the pictures, of a bar, and of an experiment at least
_TICKS = (0, 0.25, 0.5, 0.75, 1)
_HATCH = {'hatch': '////', 'alpha': 0.45}  # of what is not finished
_BACKGROUND = {'boxstyle': 'square,pad=0.1', 'fc': 'white', 'ec': 'none', 'alpha': 0.8}  # of numbers above lines


class Agent(NamedTuple):
  """An agent's logs and what they come to."""

  logs: Logs
  scores: dict[str, Score]
  tags: dict[str, float]


def read_agents(folders: Mapping[str, pathlib.Path]) -> dict[str, Agent]:
  """Reads the logs of each agent, name -> folder, and scores them.

  Raises:
    ConfigError: if there is no agent, or the logs of one cannot be read or scored; it names the agent.
  """
  if not folders:
    raise ConfigError('no agents: nothing to report')
  agents = {}
  for name, folder in folders.items():
    try:
      logs = bsuite_scores.read_logs(folder)
      if not logs:
        raise ConfigError(f'no logs of bsuite in {folder}')
      scores = bsuite_scores.scores(logs)
    except OSError as e:
      raise ConfigError(f'agent {name}: {e.filename}: {e.strerror}') from e
    except ValueError as e:
      raise ConfigError(f'agent {name}: {e}') from e
    agents[name] = Agent(logs, scores, bsuite_scores.scores_by_tag(scores))
  return agents


# --------------------------------------------------------------------------------------------------------------- tables


def _cell(agent: Agent, experiment: str) -> str:
  """A score to two decimals, * where it is not finished, or why there is none."""
  score = agent.scores.get(experiment)
  if score is None:
    return 'not run'
  return 'none yet' if np.isnan(score.score) else f'{score.score:.2f}{"" if score.finished else "*"}'


def _is_complete(agent: Agent, tag: str) -> bool:
  """Whether all experiments of a tag are finished."""
  names = [name for name in EXPERIMENTS if tag in tags_of(name)]
  return all(name in agent.scores and agent.scores[name].finished for name in names)


def _tag_cell(agent: Agent, tag: str) -> str:
  if tag in agent.tags:
    return f'{agent.tags[tag]:.2f}{"" if _is_complete(agent, tag) else "*"}'
  return 'none yet' if any(tag in score.tags for score in agent.scores.values()) else 'not run'


def _ids_cell(agent: Agent, experiment: str) -> str:
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


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
  text = io.StringIO(newline='')
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue().encode()


def score_table(agents: Mapping[str, Agent]) -> str:
  """The scores by experiment and by tag as plain text."""
  lines = [(name, *(_cell(agent, name) for agent in agents.values())) for name in EXPERIMENTS]
  tags = [(tag, *(_tag_cell(agent, tag) for agent in agents.values())) for tag in sweep.TAGS]
  tables = [metrics.format_table(('experiment', *agents), lines), metrics.format_table(('tag', *agents), tags)]
  return '\n\n'.join([*tables, '* not all ids or episodes'])


def _numbers(numbers: Sequence[int]) -> str:
  """Rising whole numbers with runs of them together: 0-3, 7."""
  starts = [n for n in numbers if n - 1 not in numbers]
  ends = [n for n in numbers if n + 1 not in numbers]
  return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in zip(starts, ends, strict=True))


def lacking(agent: Agent) -> list[str]:
  """A line for each experiment that is not finished: which ids have no log, and which have not all episodes."""
  lines = []
  for experiment in EXPERIMENTS:
    ids = IDS[experiment]
    missing = [i for i, x in enumerate(ids) if x not in agent.logs]
    begun = [
      i for i, x in enumerate(ids) if x in agent.logs and np.max(agent.logs[x]['episode']) < sweep.EPISODES[ids[0]]
    ]
    if len(missing) == len(ids):
      lines.append(f'{experiment}: not run')
      continue
    parts = [f'{len(missing)} of {len(ids)} ids not run ({_numbers(missing)})'] if missing else []
    parts += [f'{len(begun)} with fewer than {sweep.EPISODES[ids[0]]:,} episodes ({_numbers(begun)})'] if begun else []
    lines += [f'{experiment}: {"; ".join(parts)}'] if parts else []
  return lines


# -------------------------------------------------------------------------------------------------------------- figures


def _label(name: str) -> str:
  """An agent's name as Matplotlib shows it unchanged: $ would begin a formula, _ hide it from a legend."""
  return textwrap.fill((' ' if name.startswith('_') else '') + name.replace('$', r'\$'), 36)


def _figure(height: float, title: str, **kwargs: Any) -> tuple[Figure, Axes]:
  # No pyplot: its state is global, and this may run next to other code that draws.
  figure = Figure((_WIDTH, height), layout='constrained', facecolor='white')
  figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
  figure.suptitle(title, x=0.02, ha='left', fontsize=12, weight='bold')
  return figure, figure.subplots(subplot_kw=kwargs)


def _add_legend(figure: Figure, handles: Sequence[Any]) -> None:
  if handles:
    columns = 2 if len(handles) > 3 or max(len(x.get_label()) for x in handles) > 24 else len(handles)
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, frameon=False, fontsize=9.5)


def draw_radar(agents: Mapping[str, Agent], path: pathlib.Path) -> str:
  """Draws the mean scores by tag, a line for each agent that has gaps where a tag has no score."""
  figure, axis = _figure(6.6, 'bsuite: mean score by tag', projection='polar')
  tags = list(sweep.TAGS)
  angles = np.linspace(0, 2 * np.pi, len(tags), endpoint=False)
  handles, hollow = [], False
  for number, (name, agent) in enumerate(agents.items()):
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    values = np.array([agent.tags.get(tag, np.nan) for tag in tags])
    look = {'color': colour, 'lw': 1.8, 'ls': '--' if number // len(COLOURS) % 2 else '-'}
    axis.plot([*angles, angles[0]], [*values, values[0]], **look, zorder=3)
    if not np.isnan(values).any():
      axis.fill(angles, values, color=colour, alpha=0.08, lw=0)
    for tag, angle, value in zip(tags, angles, values, strict=True):
      complete = _is_complete(agent, tag)
      hollow |= not complete and not np.isnan(value)
      face = colour if complete else 'white'
      axis.plot(angle, value, marker, ms=7, mec=colour, mfc=face, mew=1.6, zorder=4, clip_on=False)
    handles.append(Line2D([], [], label=_label(name), marker=marker, ms=6, **look))
  axis.set_theta_zero_location('N')
  axis.set_theta_direction(-1)
  # Zero is not in the middle, where the lines of all tags would meet.
  axis.set(rlim=(0, 1), rorigin=-0.15, rticks=_TICKS, yticklabels=[])
  for tick in _TICKS:  # in place of labels, which would lie below the lines
    look = {'ha': 'center', 'va': 'center', 'fontsize': 9, 'color': '#555555', 'zorder': 5}
    axis.text(np.pi / len(tags), tick, f'{tick:g}', bbox=_BACKGROUND, **look)
  axis.grid(color='#d8d8d8', lw=0.8)
  axis.spines[['polar', 'inner']].set_color('#b0b0b0')
  labels = [
    tag.replace('_', ' ') + ('' if any(tag in agent.tags for agent in agents.values()) else '\n(no score)')
    for tag in tags
  ]
  axis.set_xticks(angles, labels, fontsize=11)
  for angle, label in zip(angles, axis.get_xticklabels(), strict=True):
    side = np.sin(angle)
    label.set_horizontalalignment('center' if abs(side) < 0.1 else 'left' if side > 0 else 'right')
  if hollow:
    look = {'mfc': 'white', 'mec': GREY, 'mew': 1.6, 'ms': 6}
    handles.append(Line2D([], [], ls='', marker='o', label='not all of the tag finished', **look))
  _add_legend(figure, handles)
  return save_figure(str(path), figure)


def _draw_bar(axis: Axes, agent: Agent, experiment: str, place: float, height: float, colour: str) -> bool:
  """A bar with its number, or why there is none; returns whether it is hatched."""
  text, score = _cell(agent, experiment), agent.scores.get(experiment)
  beside = {'va': 'center_baseline', 'fontsize': 8}
  if score is None or np.isnan(score.score):
    axis.text(0.008, place, text, color=GREY, style='italic', **beside)
    return False
  style = {} if score.finished else _HATCH
  axis.barh(place, score.score, height, color=colour, edgecolor='white', lw=0, **style, zorder=3)
  axis.text(score.score + 0.01, place, text, color=DARK, bbox=_BACKGROUND, **beside)
  return not score.finished


def draw_bars(agents: Mapping[str, Agent], path: pathlib.Path) -> str:
  """Draws the scores by experiment below headings of types; colours are types, or agents where there are several."""
  several = len(agents) > 1
  row = max(_ROW, _BAR * len(agents) + 0.08)
  place, places, hatched, bars = 0.0, {}, False, []
  for number, (type_name, names) in enumerate(TYPES.items()):
    bars.append((place + 0.17, type_name, DARK if several else COLOURS[number]))
    place += 0.32
    for name in names:
      places[name] = place + row / 2
      place += row
  figure, axis = _figure(place + (1.5 if several else 1.3), 'bsuite: score by experiment')
  for heading, type_name, colour in bars:
    axis.text(0.004, heading, type_name.replace('_', ' '), weight='bold', fontsize=10, va='center', color=colour)
    for name in TYPES[type_name]:
      for number, agent in enumerate(agents.values()):
        at = places[name] + (number - (len(agents) - 1) / 2) * _BAR
        fill = COLOURS[number % len(COLOURS)] if several else colour
        hatched |= _draw_bar(axis, agent, name, at, 0.9 * _BAR, fill)
  axis.axvline(1, color=GREY, ls='--', lw=0.9, zorder=1)
  axis.set(xlim=(0, 1.1), ylim=(place + 0.05, 0), xticks=_TICKS, xlabel='score')
  axis.set_yticks(list(places.values()), [name.replace('_', ' ') for name in places], fontsize=9.5)
  axis.tick_params(axis='y', length=0)
  axis.grid(axis='x', color='#e6e6e6', lw=0.7)
  axis.set_axisbelow(True)
  axis.spines[['top', 'right']].set_visible(False)
  handles = [
    Patch(color=COLOURS[number % len(COLOURS)], label=_label(name)) for number, name in enumerate(agents) if several
  ]
  if hatched:
    handles.append(Patch(facecolor=GREY, edgecolor='white', lw=0, label='* not all ids or episodes', **_HATCH))
  _add_legend(figure, handles)
  return save_figure(str(path), figure)


# ----------------------------------------------------------------------------------------------------------------- page

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60em; margin: 2em auto; padding: 0 1em; }
img { width: 100%; max-width: 850px; display: block; margin: 1em 0; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 0.2em 0.8em; text-align: left; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
.none { color: #777; font-style: italic; }
"""
_EXPLANATION = """
<p>bsuite (Osband et al. 2020) is a set of 23 small experiments, each of about 20 settings, its ids. An experiment's
score is from 0 to 1: an agent that acts at random gets about 0 (0.2 in discounting chain), and one that learns the task
at once, or solves it in every setting, about 1. Every tag names an ability, and its score is the mean over the
experiments that have it; an experiment can have several.</p>
<ul>
<li>bandit, catch, mountain car: how small the regret per episode is, against that of a poor agent.</li>
<li>cartpole, cartpole swingup, mnist: half of that; the other half is for runs with a good episode, or for the accuracy
in the end.</li>
<li>with noise or scale: the mean over noise or reward scales, less half of their standard deviation, so that an agent
has to stand all of them.</li>
<li>deep sea, memory, umbrella: the fraction of the sizes or lengths that the agent learns in time.</li>
<li>discounting chain: how close the return comes to that of the best chain.</li>
</ul>
<p>A score with * is of fewer ids or episodes than the experiment has, at the last episode that was logged: it can still
change either way. What was not run has no score, nor has what ran for too short a time (none yet); a tag's mean is over
the experiments that have one.</p>
"""


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A table whose cells are plain text."""

  def cell(text: str) -> str:
    kind = ' class="none"' if text in ('not run', 'none yet') else ''
    return f'<td{kind}>{html.escape(text)}</td>'

  head = ''.join(f'<th>{html.escape(text)}</th>' for text in header)
  body = '\n'.join(f'<tr>{"".join(map(cell, row))}</tr>' for row in rows)
  return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _html_picture(path: str, what: str) -> str:
  data = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
  return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">'


def _html_lacking(name: str, agent: Agent) -> str:
  lines = lacking(agent)
  done = f'{len(agent.logs)} of {len(sweep.SWEEP)} ids were run'
  items = ''.join(f'<li>{html.escape(line)}</li>\n' for line in lines)
  text = f'{done}.</p>\n<ul>\n{items}</ul>' if lines else f'{done}, all of them to the end.</p>'
  return f'<h3>{html.escape(name)}</h3>\n<p>{text}'


def _page(agents: Mapping[str, Agent], radar: str, bars: str) -> str:
  """The page's HTML, which needs no other file."""
  everyone = agents.values()
  columns = [part for name in agents for part in (name, 'ids')]
  scores = [
    (
      *(name, ', '.join(tags_of(name))),
      *(part for agent in everyone for part in (_cell(agent, name), _ids_cell(agent, name))),
    )
    for name in EXPERIMENTS
  ]
  tags = [(tag, *(_tag_cell(agent, tag) for agent in everyone)) for tag in sweep.TAGS]
  title = f'bsuite: {", ".join(agents)}'
  parts = [
    f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>',
    f'<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>',
    '<h2>By tag</h2>',
    _html_picture(radar, 'Radar of the mean scores by tag'),
    _html_table(('tag', *agents), tags),
    '<h2>By experiment</h2>',
    _html_picture(bars, 'Bars of the scores by experiment'),
    _html_table(('experiment', 'tags', *columns), scores),
    '<h2>What was run</h2>',
    *(_html_lacking(name, agent) for name, agent in agents.items()),
    f'<h2>What the scores mean</h2>{_EXPLANATION}</body>\n</html>\n',
  ]
  return '\n'.join(parts)


def write_report(folders: Mapping[str, pathlib.Path], output: pathlib.Path) -> list[str]:
  """Writes scores.csv, radar.png, bars.png and report.html, over those that are there.

  Args:
    folders: agent's name -> folder of its logs.
    output: folder of the report; made if it is not there.

  Returns:
    The paths of the files.

  Raises:
    ConfigError: if there is no agent, or the logs of one cannot be read or scored; it names the agent.
  """
  agents = read_agents(folders)
  output.mkdir(parents=True, exist_ok=True)
  write_atomically(output / 'scores.csv', _csv(_rows(agents)))
  radar, bars = draw_radar(agents, output / 'radar.png'), draw_bars(agents, output / 'bars.png')
  write_atomically(output / 'report.html', _page(agents, radar, bars).encode())
  return [str(output / name) for name in ('scores.csv', 'radar.png', 'bars.png', 'report.html')]


# --------------------------------------------------------------------------------------------------------------- binary


def _has_logs(folder: pathlib.Path) -> bool:
  return any(folder.glob(f'{bsuite_scores.FILE_PREFIX}*.csv'))


def agent_folders(entries: Sequence[str], output: pathlib.Path) -> dict[str, pathlib.Path]:
  """The agents that --agents names, or without it those whose logs are in the output folder or its folders.

  Raises:
    ConfigError: if an entry is not NAME=FOLDER, a name comes twice, there is no such folder, or there are no logs.
  """
  folders: dict[str, pathlib.Path] = {}
  for entry in entries:
    name, _, folder = entry.partition('=')
    if not (name and folder):
      raise ConfigError(f'--agents={entry}: must be NAME=FOLDER, several separated by commas')
    if name in folders:
      raise ConfigError(f'--agents={entry}: {name} comes twice; names must differ')
    if not pathlib.Path(folder).is_dir():
      raise ConfigError(f'--agents={entry}: there is no folder {folder}')
    folders[name] = pathlib.Path(folder)
  if entries:
    return folders
  inside = sorted(output.iterdir()) if output.is_dir() else []
  found = [output] if _has_logs(output) else [folder for folder in inside if folder.is_dir() and _has_logs(folder)]
  if not found:
    raise ConfigError(f'--output_dir={output}: has no logs of bsuite; say where they are, --agents=NAME=FOLDER')
  return {folder.resolve().name: folder for folder in found}


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of this binary."""
  flags.DEFINE_string('output_dir', 'runs/bsuite', 'Folder of the report.', flag_values=flag_values)
  where = 'by default every folder with logs in --output_dir, or that itself'
  text = f'Agents and the folders of their logs, as NAME=FOLDER; {where}. Comma-separated.'
  flags.DEFINE_list('agents', [], text, flag_values=flag_values)


def main() -> None:
  """Prints the scores and writes the report."""
  output = pathlib.Path(flags.FLAGS.output_dir)
  folders = agent_folders(flags.FLAGS.agents, output)
  print(score_table(read_agents(folders)))
  for path in write_report(folders, output):
    print(path)


if __name__ == '__main__':
  define_flags()
  run_lib.start_main(main, 'bsuite_report')
