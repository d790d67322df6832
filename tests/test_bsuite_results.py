"""The committed logs of bsuite, and what is written of them: every score is what the logs beside it come to."""

import json
import pathlib
import re

import pytest

from experiments.bsuite_tables import EXPERIMENTS, cell, ids_cell, read_agents, scores_csv
from hyperagent_jax.bsuite_scores import read_logs

RESULTS = pathlib.Path(__file__).parents[1] / 'experiments' / 'results' / 'bsuite'
TEXT = (RESULTS / 'README.md').read_text()
AGENTS = ('hyperagent', 'ddqn', 'ensemble_plus')
CONTEXTS = re.compile(r'^\| (memory_\w+)/([\d, ]+):.* \| ([\d, ]+) \| ([\d, ]+) \|$', re.MULTILINE)


@pytest.fixture(scope='module')
def alone():
  return read_agents({'hyperagent': RESULTS / 'hyperagent'})


@pytest.fixture(scope='module')
def together():
  return read_agents({name: RESULTS / name for name in AGENTS}, common=True)


def test_the_scores_are_those_of_the_logs(alone, together):
  assert (RESULTS / 'scores.csv').read_bytes() == scores_csv(alone)
  assert (RESULTS / 'compared' / 'scores.csv').read_bytes() == scores_csv(together)


def test_the_page_has_these_scores(alone, together):
  rows = [[x.strip(' *') for x in line.strip('|').split('|')] for line in TEXT.splitlines() if line.startswith('|')]
  found = {row[0]: row[1:] for row in rows if row[0] in EXPERIMENTS}
  expected = {
    name: [
      *(cell(alone['hyperagent'], name), ids_cell(alone['hyperagent'], name)),
      *(cell(agent, name).strip('*') for agent in together.values()),
      ids_cell(together['hyperagent'], name),
    ]
    for name in EXPERIMENTS
    if not name.startswith('mnist')
  }
  assert found == expected


def test_every_folder_of_logs_says_with_what_it_was_made():
  folders = [path.parent for path in RESULTS.glob('*/config.json')]
  assert {folder.name for folder in folders} >= set(AGENTS)
  for folder in folders:
    assert read_logs(folder)
    assert json.loads((folder / 'config.json').read_text())['driver'] == 'fused'
