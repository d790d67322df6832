"""Figures and Markdown tables of studies, from made-up tables."""

import dataclasses
import itertools

import pytest
from PIL import Image

from experiments.deep_sea.studies import figures, tables
from experiments.deep_sea.studies.study import Study, write_rows

SYSTEMS = 'ABCDEFGHIJKLMN'


def run(series, x, episodes, size=20, cap=1000, rate=1.0, parameters=500):
  """A row for each seed; None is a seed that is not solved."""
  shared = {'study': 's', 'series': series, 'x': x, 'agent': 'a', 'size': size, 'max_episodes': cap}
  shared |= {'seconds': 60.0, 'parameters': parameters, 'steps_per_second': rate}
  shared['flags'] = f'--series={series} --size={size} --x={x}'
  return [
    {**shared, 'seed': seed, 'solved': int(episode is not None), 'episodes': e, 'interactions': e * size}
    for seed, episode in enumerate(episodes)
    for e in [cap if episode is None else episode]
  ]


def runs(series, xs, episodes, **common):
  return [row for name, x in itertools.product(series, xs) for row in run(name, x, episodes, **common)]


@pytest.fixture
def draw(tmp_path, monkeypatch):
  """Draws rows and returns the figure's axis, legend labels, texts and picture."""
  saved, save = [], figures.save_figure
  monkeypatch.setattr(figures, 'save_figure', lambda path, figure: saved.append(figure) or save(path, figure))

  def draw(rows, **changes):
    write_rows(tmp_path / 's.csv', rows)
    study = dataclasses.replace(Study('s', 'A title', 'an x', (), ()), **changes)
    path = str(tmp_path / 's.png')
    assert figures.draw_study(study, tmp_path / 's.csv', path) == path
    with Image.open(path) as picture:
      assert picture.format == 'PNG' and picture.width == 1275
    (axis,) = saved[-1].axes
    legend = [text.get_text() for legend in saved[-1].legends for text in legend.get_texts()]
    return axis, legend, [text.get_text() for text in axis.texts]

  return draw


def test_collect_takes_the_mean_of_solved_seeds_where_half_are_solved():
  cells = tables.collect(run('A', 10, [100, 300, None, None]) + run('A', '20.0', [100, None, None], cap=50))
  assert list(cells['A']) == ['10', '20']
  assert cells['A']['10'] == tables.Cell((100, 300), 200, 2, 4, 1000, True)
  assert cells['A']['20'] == tables.Cell((100,), None, 1, 3, 50, True)


def test_seconds_are_those_of_each_solved_seed_at_the_rate_of_its_run():
  rows = run('A', 10, [100, 300, None], rate=50.0) + run('A', 20, [100], rate=float('nan'))
  assert tables.collect(rows, 'seconds') == {'A': {'10': tables.Cell((40.0, 120.0), 80.0, 2, 3, 1000, True)}}


def test_collect_takes_what_belongs_to_a_run_once():
  rows = run('A', 10, [100, None], parameters=9)
  assert tables.collect(rows, 'parameters')['A']['10'] == tables.Cell((9,), 9, 1, 2, 1000, False)
  assert tables.collect(rows + rows)['A']['10'].count == '1/2'


@pytest.mark.parametrize(
  ('xs', 'log_x', 'expected'),
  [
    ([30, 10, 20], False, ('numbers', {'10': 10, '20': 20, '30': 30})),
    ([1, 2, 32], True, ('numbers', {'1': 0, '2': 1, '32': 5})),
    ([0, 0.1], True, ('categories', {'0': 0, '0.1': 1})),
    ([4, 64, 'exact'], False, ('categories', {'4': 0, '64': 1, 'exact': 2})),
    (['b', 'a'], False, ('rows', {'b': 0, 'a': 1})),
  ],
)
def test_layout(xs, log_x, expected):
  assert tables.layout(tables.collect(runs('AB', xs, [1])), log_x) == expected


def test_categories_of_one_series_each_are_rows():
  assert tables.layout(tables.collect(run('A', 1, [1]) + run('B', 'none', [1])))[0] == 'rows'
  assert tables.layout(tables.collect(run('A', 1, [1]) + run('B', 2, [1])))[0] == 'numbers'


@pytest.mark.parametrize(
  ('parts', 'text'),
  [
    ([run('A', 1, [1] * 10, 30)], '10 seeds, size 30'),
    ([run('A', 1, [1])], '1 seed, size 20'),
    ([run('A', n, [1] * 10, n) for n in (10, 50)], 'sizes 10-50; 10 seeds'),
    ([run('A', n, [1] * (10 if n <= 30 else 4), n) for n in (40, 10, 30, 50)], 'sizes 10-50; 10 seeds (4 above 30)'),
    ([run('A', n, [1] * n, n) for n in (2, 3, 5)], 'sizes 2-5; 2 to 5 seeds'),
    ([run('A', 1, [1] * 2), run('B', 1, [1] * 10)], '2 to 10 seeds, size 20'),
  ],
)
def test_subtitle(parts, text):
  assert tables.subtitle(itertools.chain(*parts)) == text


def test_ticks_leave_out_what_would_touch():
  assert list(figures.ticks({str(x): x for x in (10, 20, 50)})) == ['10', '20', '50']
  assert list(figures.ticks({str(x): x for x in (1, 2, 4, 8, 64)})) == ['1', '4', '8', '64']
  assert list(figures.ticks({str(x): x for x in range(10, 51, 2)})) == [str(x) for x in range(10, 51, 4)]


def test_markdown_table():
  rows = run('A|B', 1000, [1000, 3000], cap=9000) + run('A|B', 'exact', [2000])
  rows += run('C', 1000, [1500, 2500, None], cap=9000) + run('C', 'exact', [None, None], cap=20_000)
  assert tables.markdown_table(rows + run('D', 'exact', [5, 6])) == (
    '|  | 1,000 | exact |\n'
    '| --- | ---: | ---: |\n'
    '| A\\|B | 2,000 (1,000-3,000) | 2,000 |\n'
    '| C | 2/3: 2,000 | not solved in 20,000 (0/2) |\n'
    '| D | - | 5.5 (5-6) |\n'
  )
  only_words = run('A', 'a', [1]) + run('A', 'b', [2]) + run('B', 'a', [3])
  assert tables.markdown_table(only_words) == '|  | A | B |\n| --- | ---: | ---: |\n| a | 1 | 3 |\n| b | 2 | - |\n'
  assert '| 12.3 |' in tables.markdown_table(run('A', 1, [1], size=12.345), 'seconds')


def test_lines_with_many_series(draw):
  rows = runs(SYSTEMS[:12], [10, 20, 50], [200, 300]) + runs('MN', [10, 20, 50], [None, 400])
  axis, legend, texts = draw(rows)
  assert legend[:14] == list(SYSTEMS)
  assert [text.get_text() for text in axis.get_xticklabels()] == ['10', '20', '50']
  assert texts.count('1/2') == 6 and texts.count('cap') == 1
  assert axis.get_ylabel() == 'episodes to solve' and axis.get_yscale() == 'log'
  looks = [figures._style(number, 'numbers') for number in range(14)]
  assert len({(look['color'], look['marker'], look['ls']) for look in looks}) == 14


def test_a_series_has_a_gap_where_few_seeds_are_solved(draw):
  axis, legend, _ = draw(run('A', 1, [100, 200]) + run('A', 2, [100, None, None]) + run('A', 4, [300]), log_x=True)
  (means,) = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 3]
  assert str(means.tolist()) == '[150.0, nan, 300.0]'
  assert axis.get_xticks().tolist() == [0, 1, 2]
  assert 'unsolved seeds (k/n: solved)' in legend and 'mean of the solved, half or more' not in legend


def test_no_cap_where_all_seeds_are_solved(draw):
  axis, legend, texts = draw(runs('AB', [1, 2, 4, 20, 64, 'exact'], [100, 200]), log_y=False)
  assert texts == [] and axis.get_ylim()[1] < 1000
  assert [label for label in legend if label.strip()] == ['A', 'one seed', 'B', 'min to max']
  assert axis.get_xticklabels()[-1].get_text() == 'exact'


def test_caps_that_differ(draw):
  axis, _, texts = draw(run('A', 10, [None], cap=100) + run('A', 20, [None], cap=400))
  assert texts == ['0/1', '0/1', 'cap']
  assert axis.get_ylim()[0] < 100 and axis.get_ylim()[1] > 400


def test_rows(draw):
  names = ['none', 'prior', 'target']
  axis, legend, texts = draw(runs(['size 20', 'size 40'], names, [100, 300]) + run('size 40', 'all', [None, 500]))
  assert [text.get_text() for text in axis.get_yticklabels()] == [*names, 'all']
  assert texts.count('2/2') == 6 and texts.count('1/2') == 1 and texts[-2:] == ['solved', 'cap']
  assert axis.get_xlabel() == 'episodes to solve' and axis.get_xscale() == 'log'
  assert 'size 40' in legend


@pytest.mark.parametrize('y', ['seconds', 'parameters'])
def test_columns_of_a_run(draw, y):
  axis, legend, texts = draw(runs('ABCDE', [10, 20], [100, None]), y=y)
  assert axis.get_ylabel() == figures.Y_LABELS[y] and texts == []
  assert legend == [*'ABCDE', *(['not all seeds solved'] if y == 'seconds' else [])]


@pytest.mark.parametrize(
  ('text', 'y', 'message'),
  [
    ('study,series\n', 'episodes', 'no column x, agent'),
    (','.join(figures.COLUMNS) + '\n', 'episodes', 'no runs yet'),
    (None, 'seed', 'cannot draw column seed'),
    (','.join(figures.COLUMNS) + '\ns,A,1,a,20,0,1,many,1,9,1,1,1,f\n', 'episodes', 'many'),
  ],
)
def test_bad_tables(tmp_path, text, y, message):
  table = tmp_path / 's.csv'
  write_rows(table, run('A', 1, [1])) if text is None else table.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    figures.draw_study(Study('s', '', '', (), (), y=y), table, str(tmp_path / 's.png'))
  assert str(error.value).startswith(f'{table}: ') and '\n' not in str(error.value)
  assert not (tmp_path / 's.png').exists()


def test_no_rows_make_no_table():
  with pytest.raises(ValueError, match='no rows'):
    tables.markdown_table([])
