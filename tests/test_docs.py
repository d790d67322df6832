"""The README's code runs as it stands, and names only files and flags that exist."""

import dataclasses
import pathlib
import re

import hyperagent_jax as ha

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / 'README.md').read_text()


def test_every_python_block_runs():
  blocks = re.findall(r'```python\n(.*?)```', TEXT, flags=re.DOTALL)
  assert len(blocks) >= 2
  namespace = {}
  for block in blocks:
    exec(compile(block, 'README.md', 'exec'), namespace)
  learner = namespace['learner']
  assert int(learner.num_updates) > 0


def test_every_linked_file_exists():
  links = [x for x in re.findall(r'\]\(([^)#]+)\)', TEXT) if '://' not in x]
  assert links
  for link in links:
    assert (ROOT / link).exists(), link


def test_every_flag_named_exists():
  from absl import flags

  from experiments.atari import binary as atari
  from experiments.atari import stages as atari_stages
  from experiments.bsuite import binary as bsuite
  from experiments.bsuite import report as bsuite_report
  from experiments.deep_sea import binary as deep_sea
  from experiments.deep_sea.studies import binary as studies
  from experiments.tabular import binary as tabular

  named = set(re.findall(r'--(?:no)?([a-z][a-z0-9_]+)', re.sub(r'XLA_FLAGS=\S+', '', TEXT)))
  assert {'size', 'num_seeds', 'update_ratio'} <= named
  defined = {'help'}
  for binary in (atari, atari_stages, bsuite, bsuite_report, deep_sea, studies, tabular):
    values = flags.FlagValues()
    binary.define_flags(values)
    defined |= set(values)
  unknown = {n for n in named if n not in defined and 'no' + n not in defined}
  assert not unknown
  fields = {f.name for f in dataclasses.fields(ha.HyperAgentConfig)}
  assert {'update_indices', 'sigma', 'beta'} <= fields
