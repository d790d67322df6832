"""The README and the documentation: code runs as it stands, what they name exists, numbers are those of the files."""

import csv
import importlib
import importlib.util
import pathlib
import pkgutil
import re
from collections import defaultdict

import numpy as np
import pytest

import hyperagent_jax as ha
from docs import flags, pages, reference
from experiments.deep_sea.figures import episodes_to_solve, read_results

ROOT = pathlib.Path(__file__).parents[1]
DOCS = {f'docs/{path.relative_to(ROOT / "docs")}': path.read_text() for path in (ROOT / 'docs').rglob('[!_]*.md')}
DOCS = {name: text for name, text in DOCS.items() if '_generated' not in name}
READMES = {name: (ROOT / name).read_text() for name in pages.PAGES}
TEXTS = READMES | DOCS
BLOCK = re.compile(r'```(?:python|\{code-cell\} ipython3)\n(.*?)```', flags=re.DOTALL)


def test_the_readme_is_a_page():
  assert len(READMES['README.md'].splitlines()) <= 150


LONG = {'docs/quickstart.md': pytest.mark.long}  # which the build of the documentation runs too


@pytest.mark.parametrize(
  'name', [pytest.param(n, marks=LONG.get(n, ())) for n, text in TEXTS.items() if BLOCK.search(text)]
)
def test_every_python_block_runs(name):
  namespace = {}
  for block in BLOCK.findall(TEXTS[name]):
    exec(compile(block, name, 'exec'), namespace)
  if name == 'docs/quickstart.md':
    assert len(BLOCK.findall(TEXTS[name])) == 4
    assert int(namespace['learner'].num_updates) == 1
  if name == 'README.md':
    returns = namespace['runner'].evaluate(namespace['state']).returns.mean(axis=1)
    assert np.max(returns) > 0.9  # it has found the treasure


def links_of(text):
  return [x for x in re.findall(r'\]\(([^)#\s]+)[^)]*\)', text) if '://' not in x]


@pytest.mark.parametrize('name', TEXTS)
def test_every_linked_file_exists(name):
  for link in links_of(TEXTS[name]):
    assert (ROOT / name).parent.joinpath(link).exists(), link


def test_every_page_can_be_reached():
  reached, found = set(), {'docs/index.md'}
  while found - reached:
    name = (found - reached).pop()
    reached.add(name)
    for tree in re.findall(r'```\{toctree\}\n(.*?)```', DOCS[name], flags=re.DOTALL):
      entries = [line for line in tree.splitlines() if line and not line.startswith(':')]
      found |= {f'{name.rpartition("/")[0]}/{entry}.md' for entry in entries}
  assert reached == set(DOCS)
  assert {f'docs/{link}' for link in links_of(READMES['README.md']) if link.startswith('docs/')} <= {
    f'docs/{name}' for name in DOCS
  }


@pytest.mark.parametrize('name', TEXTS)
def test_every_flag_named_exists(name):
  text = re.sub(r'--xla\S+', '', TEXTS[name])  # XLA's own
  defined = {*flags.all_flag_names(), 'help'}
  for flag in set(re.findall(r'--([a-z][a-z0-9_]+)', text)):
    assert flag in defined or flag.removeprefix('no') in defined, f'--{flag}'


@pytest.mark.parametrize('name', TEXTS)
def test_every_command_named_exists(name):
  makefile = (ROOT / 'Makefile').read_text()
  for module in re.findall(r'python -m ([a-z_.]+[a-z_])', TEXTS[name]):
    assert importlib.util.find_spec(module), module
  for target in re.findall(r'`make ([a-z-]+)`|^ {4}make ([a-z-]+)', TEXTS[name], flags=re.MULTILINE):
    assert re.search(rf'^{"".join(target)}:', makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize('name', TEXTS)
def test_every_public_name_in_code_exists(name):
  for dotted in re.findall(r'`ha\.([A-Za-z_.]+)', TEXTS[name]):
    part = ha
    for word in dotted.split('.'):
      part = getattr(part, word)


# ------------------------------------------------------------------------------------------------------- what is made


def test_no_public_name_is_missing_from_the_api_reference():
  assert reference.missing_names() == []


def test_all_public_packages_are_in_the_reference():
  found = {'hyperagent_jax'}
  for module in pkgutil.walk_packages(ha.__path__, 'hyperagent_jax.'):
    if module.ispkg and hasattr(importlib.import_module(module.name), '__all__'):
      found.add(module.name)
  assert found == set(reference.PACKAGES)


def test_the_tables_have_every_flag(tmp_path):
  flags.write(tmp_path)
  made = {path.name: path.read_text() for path in tmp_path.iterdir()}
  included = {name for text in DOCS.values() for name in re.findall(r'_generated/(flags\w+\.md)', text)}
  assert included == set(made)
  text = ''.join(made.values())
  for binary in flags.BINARIES:
    for name, flag in flags.flags_of(binary).items():
      assert f'| `--{name}` |' in text, name
      assert re.sub(r'^<.*?>: ', '', flag.help).replace('|', '\\|') in text, name
  assert '| `--prior_scale` | 10 | 0.1 | 3 | Weight c_prior of the fixed prior. From 0 to 1e+06. |' in text


def test_a_readme_becomes_a_part_of_a_page(tmp_path):
  pages.write(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {page for page in pages.PAGES.values() if page != 'index.md'}
  readme = '# Title\n\nAn interval [0, 1), [a page](../tabular/README.md), ![figure](x.png) and [x.csv](x.csv).\n'
  text = pages.with_links_of_pages(pages.without_title(readme), 'experiments/results/studies/README.md')
  assert text == (
    'An interval [0, 1), [a page](theory.md), ![figure](../experiments/results/studies/x.png) and '
    '`experiments/results/studies/x.csv`.\n'
  )


def test_docstrings_become_restructured_text():
  lines = ['Mean |x| of a*b and x_.', '', '    y = |x|', 'with `a|b`.', '', 'Args:', '  a: |a|.']
  expected = ['Mean \\|x\\| of a\\*b and x\\_.', '', '', '::', '', '    y = |x|', '', 'with `a|b`.', '', 'Args:']
  assert reference.as_rst(lines) == [*expected, '  a: \\|a\\|.']


def test_signatures_name_types_as_the_source_does():
  arguments, result = reference.signature_of(ha.make_perturbation)
  assert arguments == '(name: str, dim: int, num_nonzero: int=1)'
  assert result == '~hyperagent_jax.distributions.Distribution'
  assert reference.signature_of(ha.types.InitActor.__call__) == ('(key: PRNGKey, /)', 'Any')


def test_fields_are_listed_with_the_comments_beside_them():
  fields = {field.name: field for field in reference.fields_of(ha.LearnerState)}
  assert list(fields) == list(ha.LearnerState._fields)
  assert fields['prior_params'].comment == 'drawn once, never trained'


# ---------------------------------------------------------------------------------------------------- numbers of files


def row(*cells):
  return f'| {" | ".join(cells)} |'


@pytest.mark.parametrize(
  'folder, texts',
  [
    ('deep_sea', ('README.md', 'docs/deep_sea.md')),
    ('deep_sea_update_ratio_4', ('docs/deep_sea.md',)),
    ('deep_sea_large', ('docs/deep_sea.md',)),
  ],
)
def test_episodes_to_solve_are_those_of_the_results(folder, texts):
  for size, seeds in episodes_to_solve(read_results(str(ROOT / f'experiments/results/{folder}/results.csv'))).items():
    episodes = [n for n in seeds.values() if n is not None]
    found = (f'{np.mean(episodes):,.0f}', f'{min(episodes):,}', f'{max(episodes):,}')
    for text in texts:
      assert row(str(size), f'{len(episodes)}/{len(seeds)}', *found)[:-1] in TEXTS[text]


def rows_of(path):
  with (ROOT / path).open(newline='') as file:
    return list(csv.DictReader(file))


def test_the_best_presets_episodes_are_those_of_the_study():
  episodes = defaultdict(list)
  for line in rows_of('experiments/results/studies/best.csv'):
    if line['series'] == 'deep_sea_best':
      assert line['solved'] == '1'
      episodes[line['size']].append(int(line['episodes']))
  for size, found in episodes.items():
    numbers = (f'{np.mean(found):,.0f}', f'{min(found):,}', f'{max(found):,}')
    assert row(size, f'{len(found)}/{len(found)}', *numbers) in DOCS['docs/deep_sea.md']


@pytest.mark.parametrize('name', ['README.md', 'docs/atari.md'])
def test_returns_on_pong_are_those_of_the_run(name):
  policies = {
    ('final', '1'): 'HyperAgent, parameters of the best evaluation, seed 1',
    ('final', '2'): 'HyperAgent, the same of seed 2',
    ('untrained', '1'): 'before training, either seed',
    ('untrained', '2'): 'before training, either seed',
  }
  scores = {(x['kind'], x['seed']): x for x in rows_of('experiments/results/atari_pong/scores.csv')}
  for key, policy in policies.items():
    assert row(policy, scores[key]['num_episodes'], f'{float(scores[key]["mean_return"]):.1f}') in TEXTS[name]


def test_rates_are_those_of_the_benchmarks():
  measured = {x['what']: float(x['value']) for x in rows_of('benchmarks/results/throughput.csv')}
  rate = f'{measured["size 20, 1 seed, exact"]:,.0f}'
  assert row('size 20, one seed, exact expectation', rate) in DOCS['docs/speed.md']
  assert row('`make bench`', 'two virtual cores of an Intel Xeon, one seed', rate) in READMES['README.md']


def test_rates_on_a_gpu_are_those_of_the_benchmark():
  lines = rows_of('benchmarks/results/accelerator.csv')
  measured = {(x['what'], x['seeds']): x['value'] for x in lines if x['unit'] == 'interactions/s'}
  cases = {
    ('DeepSea 20', '1'): 'DeepSea 20',
    ('DeepSea 20', '1024'): 'DeepSea 20',
    ('training, nature, products, default', '16'): 'Pong, Nature torso, as matrix products',
    ('training, data_efficient, windows, default', '16'): 'Pong, data-efficient torso (`--preset=fast_cpu`)',
  }
  for (what, seeds), case in cases.items():
    rate = float(measured[what, seeds])
    text = f'{round(rate, -3) if rate > 1e6 else rate:,.0f}'
    assert row(case, f'{int(seeds):,}', text) in DOCS['docs/speed.md']
    assert what != 'DeepSea 20' or text in READMES['README.md']
