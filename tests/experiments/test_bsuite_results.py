"""The committed logs of bsuite, and what is written of them: every score is what the logs beside it come to."""

import json
import pathlib
import re

import pytest
from bsuite import sweep

from experiments.bsuite.tables import EXPERIMENTS, cell, ids_cell, read_agents, scores_csv, tag_cell
from experiments.common.settings import config_to_dict
from hyperagent_jax import presets
from hyperagent_jax.scores.bsuite import read_logs, scores

RESULTS = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'bsuite'
ROOT = RESULTS.parents[2]
README, PAGE = (ROOT / 'README.md').read_text(), (ROOT / 'docs' / 'bsuite.md').read_text()
AGENTS = ('hyperagent', 'ddqn', 'ensemble_plus')
# First cell of a row -> the others, of all tables on the page.
LINES = [line for line in (RESULTS / 'README.md').read_text().splitlines() if line.startswith('|')]
ROWS = {row[0]: row[1:] for row in ([x.strip(' *') for x in line.strip('|').split('|')] for line in LINES)}


@pytest.fixture(scope='module')
def alone():
  return read_agents({'hyperagent': RESULTS / 'hyperagent'})['hyperagent']


@pytest.fixture(scope='module')
def together():
  return read_agents({name: RESULTS / name for name in AGENTS}, common=True)


def test_the_scores_are_those_of_the_logs(alone, together):
  assert (RESULTS / 'scores.csv').read_bytes() == scores_csv({'hyperagent': alone})
  assert (RESULTS / 'compared' / 'scores.csv').read_bytes() == scores_csv(together)


@pytest.mark.parametrize('name', [name for name in EXPERIMENTS if not name.startswith('mnist')])
def test_the_page_has_an_experiments_scores(name, alone, together):
  of_these = [cell(agent, name).strip('*') for agent in together.values()]
  assert ROWS[name] == [cell(alone, name), ids_cell(alone, name), *of_these, ids_cell(together['hyperagent'], name)]


@pytest.mark.parametrize('tag', sweep.TAGS)
def test_the_page_has_a_tags_scores(tag, alone, together):
  name, of_these = tag.replace('_', ' '), [tag_cell(agent, tag).strip('*') for agent in together.values()]
  assert ROWS[name] == [tag_cell(alone, tag).strip('*'), *of_these]
  assert f'| {" | ".join([name, *of_these])} |' in README


def test_the_page_has_the_scores_of_another_seed():
  seeds = [read_logs(RESULTS / name) for name in ('hyperagent', 'hyperagent_seed_1')]
  first, second = (scores({bsuite_id: logs[bsuite_id] for bsuite_id in seeds[1]}) for logs in seeds)
  columns = zip(ROWS['ids'], ROWS['seed 0'], ROWS['seed 1'], strict=True)
  found = dict(zip(ROWS['score of these ids'], columns, strict=True))
  assert found == {name: (str(x.num_ids), f'{x.score:.2f}', f'{second[name].score:.2f}') for name, x in first.items()}


@pytest.mark.parametrize('experiment', ['memory_len', 'memory_size'])
def test_the_documentation_has_what_a_history_remembers(experiment):
  row = next(line for line in PAGE.splitlines() if line.startswith(f'| {experiment}/'))
  numbers, *found = re.fullmatch(r'\| \w+/([\d, ]+):[^|]*\| ([\d, ]+) \| ([\d, ]+) \|', row).groups()
  for folder, cell_of in zip(('hyperagent', 'hyperagent_history_101'), found, strict=True):
    logs = read_logs(RESULTS / folder)
    right = [int(logs[f'{experiment}/{number}']['total_perfect'][-1]) for number in numbers.split(', ')]
    assert cell_of == ', '.join(f'{x:,}' for x in right)


# What tells each folder of logs from the sweep with the preset.
CHANGES = {
  'hyperagent': {},
  'hyperagent_seed_1': {'seed': 1},
  'hyperagent_history_101': {'frame_stack': 101},
  'hyperagent_clipped': {'batch_size': 128, 'target_period': 4, 'max_grad_norm': 10.0},
}


def test_every_folder_of_logs_says_with_what_it_was_made():
  folders = {path.parent.name for path in RESULTS.glob('*/bsuite_id_-_*.csv')}
  assert folders == {*CHANGES, *AGENTS}
  preset = config_to_dict(presets.bsuite()) | {'agent': 'hyperagent', 'seed': 0, 'num_episodes': 0}
  for name in folders:
    settings = {'frame_padding': 'blank'} | json.loads((RESULTS / name / 'config.json').read_text())  # it came later
    expected = preset | CHANGES[name] if name in CHANGES else {'agent': name, 'seed': 0, 'num_episodes': 0}
    assert {key: settings[key] for key in expected} == expected
