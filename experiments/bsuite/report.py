"""What bsuite runs come to: scores.csv, a table, a radar by tag, bars by experiment, and a page with all of it.

    python -m experiments.bsuite.report --output_dir=runs/bsuite --agents=hyperagent=runs/a,ddqn=runs/b

An agent's folder holds logs as bsuite's CSV logger writes them. It need not be finished: what was not run is named, and
never shown as a score of zero.
"""

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags
from bsuite import sweep

from experiments.bsuite.figures import draw_bars, draw_radar
from experiments.bsuite.tables import (
  EXPERIMENTS,
  LEFT_OUT,
  NONE_YET,
  NOT_RUN,
  Agent,
  cell,
  ids_cell,
  lacking,
  read_agents,
  score_table,
  scores_csv,
  tag_cell,
)
from experiments.common.cli import start_main
from experiments.common.files import write_atomically
from experiments.common.runs import folder_named
from hyperagent_jax.config import ConfigError
from hyperagent_jax.scores.bsuite import LOG_FILES, tags_of

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
score is from 0 to 1: an agent that acts at random gets about 0 (0.1 in mountain car, 0.2 in discounting chain), and one
that learns the task at once, or solves it in every setting, about 1. Every tag names an ability, and its score is the
mean over the experiments that have it; an experiment can have several.</p>
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
    kind = ' class="none"' if text in (NOT_RUN, LEFT_OUT, NONE_YET) else ''
    return f'<td{kind}>{html.escape(text)}</td>'

  head = ''.join(f'<th>{html.escape(text)}</th>' for text in header)
  body = '\n'.join(f'<tr>{"".join(map(cell, row))}</tr>' for row in rows)
  return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _html_picture(path: str, what: str) -> str:
  data = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
  return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">'


def _html_lacking(name: str, agent: Agent) -> str:
  lines = lacking(agent)
  done = f'{len(agent.logs)} of {len(sweep.SWEEP)} ids {"count" if agent.missing == LEFT_OUT else "were run"}'
  items = ''.join(f'<li>{html.escape(line)}</li>\n' for line in lines)
  text = f'{done}.</p>\n<ul>\n{items}</ul>' if lines else f'{done}, all of them to the end.</p>'
  return f'<h3>{html.escape(name)}</h3>\n<p>{text}'


def _page(agents: Mapping[str, Agent], radar: str, bars: str) -> str:
  """The page's HTML, which needs no other file."""
  everyone = agents.values()
  common = any(agent.missing == LEFT_OUT for agent in everyone)
  columns = [part for name in agents for part in (name, 'ids')]
  scores = [
    (
      *(name, ', '.join(tags_of(name))),
      *(part for agent in everyone for part in (cell(agent, name), ids_cell(agent, name))),
    )
    for name in EXPERIMENTS
  ]
  tags = [(tag, *(tag_cell(agent, tag) for agent in everyone)) for tag in sweep.TAGS]
  title = f'bsuite: {", ".join(agents)}'
  parts = [
    f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>',
    f'<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>',
    '<p>Only ids that all of these agents have played to the end count.</p>' if common else '',
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


def write_files(agents: Mapping[str, Agent], output: pathlib.Path) -> list[str]:
  """Writes scores.csv, radar.png, bars.png and report.html, over those that are there.

  Args:
    agents: what `read_agents` gives.
    output: folder of the report; made if it is not there.

  Returns:
    The paths of the files.
  """
  output.mkdir(parents=True, exist_ok=True)
  write_atomically(output / 'scores.csv', scores_csv(agents))
  radar, bars = draw_radar(agents, output / 'radar.png'), draw_bars(agents, output / 'bars.png')
  write_atomically(output / 'report.html', _page(agents, radar, bars).encode())
  return [str(output / name) for name in ('scores.csv', 'radar.png', 'bars.png', 'report.html')]


def write_report(folders: Mapping[str, pathlib.Path], output: pathlib.Path, common: bool = False) -> list[str]:
  """Reads and scores agents' logs and writes the report on them; see `read_agents` and `write_files`.

  Raises:
    ConfigError: as `read_agents`.
  """
  return write_files(read_agents(folders, common), output)


def _has_logs(folder: pathlib.Path) -> bool:
  return any(folder.glob(LOG_FILES))


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
    folders[name] = folder_named(folder, 'agents')
    if not folders[name].is_dir():
      raise ConfigError(f'--agents={entry}: there is no folder {folder}')
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
  text = 'Score only the ids that all agents have played to the end, so that scores compare like with like.'
  flags.DEFINE_bool('common', False, text, flag_values=flag_values)


def main() -> None:
  """Prints the scores and writes the report."""
  output = folder_named(flags.FLAGS.output_dir)
  folders = agent_folders(flags.FLAGS.agents, output)
  agents = read_agents(folders, flags.FLAGS.common)
  print(score_table(agents))
  for path in write_files(agents, output):
    print(path)


if __name__ == '__main__':
  start_main(main, 'bsuite_report', define_flags)
