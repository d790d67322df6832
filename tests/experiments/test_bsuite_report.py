"""The report on bsuite runs, from made-up logs."""

import base64
import csv
import html.parser
import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from bsuite import sweep
from bsuite.experiments import summary_analysis
from PIL import Image

from experiments.bsuite import figures as bsuite_figures
from experiments.bsuite import report as lib
from experiments.bsuite import tables as bsuite_tables
from hyperagent_jax.config import ConfigError
from hyperagent_jax.scores.bsuite import IDS

ROOT = pathlib.Path(__file__).parents[2]
ODD = '<b>odd</b> & $x$'


def write_log(folder, bsuite_id, episodes, **totals):
  """A log of a few rows that adds the same to each total in every episode."""
  folder.mkdir(parents=True, exist_ok=True)
  lines = [','.join(['episode', *totals])]
  lines += [','.join(map(str, [n, *(rate * n for rate in totals.values())])) for n in episodes]
  (folder / f'bsuite_id_-_{bsuite_id.replace("/", "-")}.csv').write_text('\n'.join(lines) + '\n')


def write_catch(folder):
  """Everything of catch, which is scored 0.75."""
  for bsuite_id in IDS['catch']:
    write_log(folder, bsuite_id, [9000, 10_000], total_regret=0.4)


def write_agents(folder):
  """One agent that has finished catch, and one with an odd name that has begun other experiments."""
  first, second = folder / 'first', folder / 'second'
  write_catch(first)
  for number in (0, 1, 2, 5):
    write_log(second, f'bandit/{number}', [100, 10_000 if number else 200], total_regret=0.5)
  write_log(second, 'mnist/3', [100], total_regret=1.0)
  write_log(second, 'memory_len/0', [10_000], total_perfect=0.9)
  return {'first': first, ODD: second}


@pytest.fixture
def folders(tmp_path):
  return write_agents(tmp_path)


class Page(html.parser.HTMLParser):
  """What a page shows: text, tables' rows and pictures; refuses tags that do not match."""

  def __init__(self, text):
    super().__init__()
    self.open, self.rows, self.images, self.texts = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    if tag == 'tr':
      self.rows.append([])
    if tag == 'img':
      self.images.append(dict(attrs)['src'])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag not in ('img', 'meta'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)
    if self.open and self.open[-1] in ('td', 'th'):
      self.rows[-1][-1] += data


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  """A report's folder, its page's text, and what that shows."""
  folder = tmp_path_factory.mktemp('report')
  output = folder / 'out' / 'new'
  paths = lib.write_report(write_agents(folder), output)
  assert paths == [str(output / name) for name in ('scores.csv', 'radar.png', 'bars.png', 'report.html')]
  assert sorted(os.listdir(output)) == sorted(os.path.basename(path) for path in paths)
  text = (output / 'report.html').read_text()
  return output, text, Page(text)


def test_order_is_bsuites():
  assert list(bsuite_tables.EXPERIMENTS) == summary_analysis._ORDERED_EXPERIMENTS
  assert list(bsuite_tables.TYPES) == summary_analysis._ORDERED_TYPES
  for type_name, names in bsuite_tables.TYPES.items():
    assert all(summary_analysis.BSUITE_INFO[name].type == type_name for name in names)


def test_scores_file_has_every_experiment_of_every_agent(report):
  with (report[0] / 'scores.csv').open(newline='') as file:
    rows = {(row['agent'], row['experiment']): row for row in csv.DictReader(file)}
  assert len(rows) == 2 * 23
  assert rows['first', 'catch'] == {
    'agent': 'first',
    'experiment': 'catch',
    'tags': 'basic credit_assignment',
    'score': '0.750000',
    'finished': '1',
    'ids': '20',
  }
  values = lambda *key: [rows[key][name] for name in ('score', 'finished', 'ids')]
  assert values(ODD, 'bandit') == ['0.000000', '0', '4']
  assert values(ODD, 'memory_len') == ['1.000000', '0', '1']
  assert values(ODD, 'mnist') == ['', '0', '1']  # begun, but without a score
  assert values(ODD, 'catch') == ['', '0', '0']


def test_page_shows_scores_and_what_is_missing(report):
  _, text, page = report
  assert '<b>' not in text and html.escape(ODD) in text
  assert ['tag', 'first', ODD] in page.rows
  assert ['basic', '0.75*', '0.00*'] in page.rows
  assert ['generalization', 'not run', 'none yet'] in page.rows
  assert ['memory', 'not run', '1.00*'] in page.rows
  assert ['experiment', 'tags', 'first', 'ids', ODD, 'ids'] in page.rows
  assert ['catch', 'basic, credit_assignment', '0.75', '20/20', 'not run', '0/20'] in page.rows
  assert ['bandit', 'basic', 'not run', '0/20', '0.00*', '4/20'] in page.rows
  assert ['mnist', 'basic, generalization', 'not run', '0/20', 'none yet', '1/20'] in page.rows
  assert '20 of 468 ids were run.' in page.texts and '6 of 468 ids were run.' in page.texts
  assert page.texts.count('mnist: not run') == 1 and page.texts.count('memory_size: not run') == 2
  assert 'catch: not run' in page.texts and not any(x.startswith('catch: 0') for x in page.texts)
  assert 'bandit: 16 of 20 ids not run (3-4, 6-19); 1 with fewer than 10,000 episodes (0)' in page.texts


def test_page_holds_its_pictures(report):
  output, text, page = report
  assert not re.search(r'(src|href)="(?!data:)', text)
  assert len(page.images) == 2
  sizes = {}
  for name, source in zip(('radar', 'bars'), page.images, strict=True):
    kind, data = source.split(',')
    assert kind == 'data:image/png;base64'
    content = base64.b64decode(data, validate=True)
    assert content == (output / f'{name}.png').read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
      picture.load()
      sizes[name] = picture.size
  assert sizes['radar'] == (1275, 990)
  assert sizes['bars'][0] == 1275 and sizes['bars'][1] > 1500


def test_agents_with_everything_lack_nothing(tmp_path):
  agent = bsuite_tables.Agent({i: {'episode': np.array([sweep.EPISODES[i]])} for i in sweep.SWEEP}, {}, {})
  assert bsuite_tables.lacking(agent) == []
  assert '468 of 468 ids were run, all of them to the end.' in lib._html_lacking('a', agent)
  del agent.logs['catch/7']
  assert bsuite_tables.lacking(agent) == ['catch: 1 of 20 ids not run (7)']
  agent.logs['catch/8'] = {'episode': np.array([1, 9000])}
  assert bsuite_tables.lacking(agent) == ['catch: 1 of 20 ids not run (7); 1 with fewer than 10,000 episodes (8)']


@pytest.fixture
def drawn(monkeypatch):
  """The figures that are drawn."""
  figures = {}
  monkeypatch.setattr(
    bsuite_figures, 'save_figure', lambda path, figure: figures.setdefault(pathlib.Path(path).stem, figure)
  )
  return figures


def legend_of(figure):
  return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_bars_show_what_is_missing_and_mark_what_is_not_finished(folders, drawn):
  agents = bsuite_tables.read_agents(folders)
  bsuite_figures.draw_bars(agents, pathlib.Path('bars.png'))
  (axis,) = drawn['bars'].axes
  # Only the three experiments with a score have a bar.
  assert sorted((round(bar.get_width(), 6), bool(bar.get_hatch())) for bar in axis.patches) == [
    (0, True),
    (0.75, False),
    (1, True),
  ]
  texts = [text.get_text() for text in axis.texts]
  assert texts.count('not run') == 2 * 23 - 4 and texts.count('none yet') == 1
  assert {'0.75', '0.00*', '1.00*'} < set(texts)
  assert [text for text in texts if text in {name.replace('_', ' ') for name in bsuite_tables.TYPES}] == [
    name.replace('_', ' ') for name in bsuite_tables.TYPES
  ]
  assert [label.get_text() for label in axis.get_yticklabels()] == [
    name.replace('_', ' ') for name in bsuite_tables.EXPERIMENTS
  ]
  assert legend_of(drawn['bars']) == ['first', ODD.replace('$', r'\$'), '* not all ids or episodes']


def test_bars_of_one_agent_have_the_colours_of_their_types(folders, drawn):
  write_log(folders['first'], 'memory_len/0', [10_000], total_perfect=0.9)
  bsuite_figures.draw_bars(bsuite_tables.read_agents({'first': folders['first']}), pathlib.Path('bars.png'))
  (axis,) = drawn['bars'].axes
  colours = [bar.get_facecolor()[:3] for bar in axis.patches]
  assert len(set(colours)) == 2
  assert legend_of(drawn['bars']) == ['* not all ids or episodes']


def test_radar_has_gaps_where_there_is_no_score(folders, drawn):
  agents = bsuite_tables.read_agents(folders)
  bsuite_figures.draw_radar(agents, pathlib.Path('radar.png'))
  (axis,) = drawn['radar'].axes
  first, second = (np.asarray(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 8)
  tags = list(sweep.TAGS)
  assert dict(zip(tags, first, strict=False)) == pytest.approx(
    {tag: {'basic': 0.75, 'credit_assignment': 0.75}.get(tag, np.nan) for tag in tags}, nan_ok=True
  )
  assert dict(zip(tags, second, strict=False)) == pytest.approx(
    {tag: {'basic': 0.0, 'memory': 1.0}.get(tag, np.nan) for tag in tags}, nan_ok=True
  )
  assert first[0] == first[-1]  # closed
  labels = dict(zip(tags, (label.get_text() for label in axis.get_xticklabels()), strict=True))
  assert labels['memory'] == 'memory' and labels['credit_assignment'] == 'credit assignment'
  assert {tag for tag, label in labels.items() if label.endswith('\n(no score)')} == {
    *('noise', 'scale', 'generalization', 'exploration')
  }
  assert legend_of(drawn['radar']) == ['first', ODD.replace('$', r'\$'), 'not all of the tag finished']


def test_score_table(folders):
  lines = [
    ' '.join(line.split()) for line in bsuite_tables.score_table(bsuite_tables.read_agents(folders)).splitlines()
  ]
  assert {'catch 0.75 not run', 'bandit not run 0.00*', 'mnist not run none yet', 'basic 0.75* 0.00*'} < set(lines)


def test_bad_logs_name_the_agent(folders, tmp_path):
  with pytest.raises(ConfigError, match=r'^no agents: nothing to report$'):
    lib.write_report({}, tmp_path)
  with pytest.raises(ConfigError, match=r'^agent a: .*none: No such file or directory$'):
    lib.write_report({'a': tmp_path / 'none'}, tmp_path)
  with pytest.raises(ConfigError, match=rf'^agent a: no logs of bsuite in {tmp_path}$'):
    lib.write_report({'a': tmp_path}, tmp_path)
  write_log(folders['first'], 'catch/0', [10_000], total_perfect=1.0)
  with pytest.raises(ConfigError, match=r'^agent first: catch/0: the log has no column total_regret$'):
    lib.write_report(folders, tmp_path / 'out')
  write_log(folders['first'], 'catch/77', [1], total_regret=0.0)
  with pytest.raises(ConfigError, match=r'^agent first: .*catch-77.csv: catch/77 is no bsuite id$'):
    lib.write_report(folders, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_common_ids_alone_count(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  for number, regret in ((0, 0.0), (1, 0.5), (2, 0.5)):
    write_log(a, f'bandit/{number}', [10_000], total_regret=regret)
  write_log(a, 'catch/0', [10_000], total_regret=0.0)
  write_log(b, 'bandit/0', [10_000], total_regret=0.25)
  write_log(b, 'bandit/1', [9_999], total_regret=0.25)  # not to the end
  folders = {'a': a, 'b': b}
  assert lib.read_agents(folders)['a'].scores['bandit'].score == pytest.approx(1 / 3)
  agents = lib.read_agents(folders, common=True)
  assert {name: list(agent.logs) for name, agent in agents.items()} == {'a': ['bandit/0'], 'b': ['bandit/0']}
  assert (agents['a'].scores['bandit'].score, agents['b'].scores['bandit'].score) == (1.0, 0.5)
  lib.write_report(folders, tmp_path, common=True)
  page = Page((tmp_path / 'report.html').read_text())
  assert 'Only ids that all of these agents have played to the end count.' in page.texts
  assert 'catch: left out' in page.texts and '1 of 468 ids count.' in page.texts
  assert ['catch', 'basic, credit_assignment', 'left out', '0/20', 'left out', '0/20'] in page.rows
  assert ['bandit', 'basic', '1.00*', '1/20', '0.50*', '1/20'] in page.rows
  assert 'not run' not in [cell for row in page.rows for cell in row]
  write_log(b, 'bandit/0', [5], total_regret=0.25)
  with pytest.raises(ConfigError, match=r'^--common: there is no id that a, b have all played to the end$'):
    lib.read_agents(folders, common=True)


def test_agents_are_named_or_found(folders, tmp_path):
  first, second = folders['first'], folders[ODD]
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'scores.csv').write_text('')
  entries = [f'a={first}', f'b={second}']
  assert lib.agent_folders(entries, tmp_path / 'out') == {'a': first, 'b': second}
  assert lib.agent_folders([], tmp_path) == {'first': first, 'second': second}
  assert lib.agent_folders([], first) == {'first': first}


@pytest.mark.parametrize(
  ('entries', 'message'),
  [
    (['a'], r'^--agents=a: must be NAME=FOLDER, several separated by commas$'),
    (['=x'], r'^--agents==x: must be NAME=FOLDER'),
    (['a='], r'^--agents=a=: must be NAME=FOLDER'),
    (['a=.', 'a=.'], r'^--agents=a=\.: a comes twice; names must differ$'),
    (['a=/no/such'], r'^--agents=a=/no/such: there is no folder /no/such$'),
    ([], r'^--output_dir=.*: has no logs of bsuite; say where they are, --agents=NAME=FOLDER$'),
  ],
)
def test_bad_agents_are_refused(tmp_path, entries, message):
  for output in (tmp_path, tmp_path / 'none'):
    with pytest.raises(ConfigError, match=message):
      lib.agent_folders(entries, output)


def test_binary(folders, tmp_path):
  output = tmp_path / 'out'
  flags = [f'--output_dir={output}', f'--agents=a={folders["first"]},b={folders[ODD]}']
  command = [sys.executable, '-m', 'experiments.bsuite_report', *flags]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert re.search(r'^ +catch +0\.75 +not run$', done.stdout, re.MULTILINE)
  assert done.stdout.splitlines()[-1] == str(output / 'report.html')
