"""What is installed and what is not: the metadata, the archives, and one line where an extra is missing."""

import ast
import functools
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement

import hyperagent_jax
from experiments.atari.binary import import_figures as import_atari_figures
from experiments.bsuite.binary import import_report
from experiments.common.extras import EXTRAS, missing, require
from experiments.common.recording import TensorBoard
from experiments.deep_sea.binary import import_figures
from hyperagent_jax.config import ConfigError

ROOT = pathlib.Path(__file__).parents[1]


def commands_of(folder):
  """Modules of a folder of the checkout that are run by their names."""
  paths = [path for path in (ROOT / folder).rglob('*.py') if "__name__ == '__main__'" in path.read_text()]
  return {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__main__') for path in paths}


# Not what building an archive may have left in the checkout, which Python would find first.
PLACES = [sysconfig.get_path('purelib')]
(INSTALLED,) = importlib.metadata.distributions(name='hyperagent_jax', path=PLACES)
PLAIN, DRAWN = ('experiments',), ('experiments', 'figures')
# Every command of the experiments -> the extras without which it says so at once.
COMMANDS = {
  'experiments.deep_sea': PLAIN,
  'experiments.deep_sea.figures': DRAWN,
  'experiments.deep_sea.studies': DRAWN,
  'experiments.deep_sea.studies.posterior_quality': DRAWN,
  'experiments.deep_sea.studies.report': DRAWN,
  'experiments.atari': (*PLAIN, 'atari'),
  'experiments.atari.figures': (*DRAWN, 'atari'),
  'experiments.atari.stages': (*PLAIN, 'atari'),
  'experiments.bsuite': (*PLAIN, 'bsuite'),
  'experiments.bsuite.report': (*DRAWN, 'bsuite'),
  'experiments.tabular': DRAWN,
  # The names of before.
  'experiments.figures': DRAWN,
  'experiments.studies': DRAWN,
  'experiments.studies.posterior_quality': DRAWN,
  'experiments.studies.report': DRAWN,
  'experiments.atari_figures': (*DRAWN, 'atari'),
  'experiments.atari_stages': (*PLAIN, 'atari'),
  'experiments.bsuite_report': (*DRAWN, 'bsuite'),
}
# A module of each extra, such as a user without it lacks.
LACKED = {'experiments': 'orbax', 'atari': 'ale_py', 'bsuite': 'bsuite', 'figures': 'matplotlib'}
# JAX is hidden too: what is missing is said before the seconds of importing it.
WITHOUT = """
import runpy, sys
hidden = {{'jax', {lacked!r}}}
class Hiding:
  def __init__(self, finder): self.finder = finder
  def find_spec(self, name, path=None, target=None):
    return None if name.split('.')[0] in hidden else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hiding, sys.meta_path)
sys.argv = ['-m']  # which is what packages see that python -m imports
runpy.run_module({command!r}, run_name='__main__', alter_sys=True)
"""


def requirements_of(extra):
  """Distributions that the installed metadata list, of an extra or, with '', of everybody."""
  found = map(Requirement, INSTALLED.requires)
  return {r.name for r in found if (r.marker.evaluate({'extra': extra}) if r.marker else not extra)}


distributions = functools.cache(importlib.metadata.packages_distributions)


def distributions_of(module):
  """What brings a module."""
  return set(distributions()[module.split('.')[0]])


def imports_of(path, inside_functions=True):
  """Top-level names of other people's packages that a file imports."""
  tree = ast.parse(path.read_text())
  nodes = ast.walk(tree) if inside_functions else tree.body
  names = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      names |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add(node.module.split('.')[0])
  return names - set(sys.stdlib_module_names) - {'hyperagent_jax', 'experiments'}


def test_the_metadata_say_what_the_package_is():
  assert INSTALLED.metadata['License-Expression'] == 'Apache-2.0'
  assert INSTALLED.metadata['Requires-Python'] == '>=3.11'
  assert INSTALLED.version == hyperagent_jax.__version__


def test_bounds_are_those_of_requirements_txt():
  lines = [line.split('#')[0].strip() for line in (ROOT / 'requirements.txt').read_text().splitlines()]
  bounds = {r.name: r.specifier for r in map(Requirement, filter(None, lines))}
  listed = [Requirement(text) for text in INSTALLED.requires]
  assert {r.name for r in listed} == set(bounds)
  others = [str(r) for r in listed if r.specifier != bounds[r.name]]
  assert sorted(others) == ['jaxlib>=0.9.1; extra == "all"', 'jaxlib>=0.9.1; extra == "atari"']  # see setup.py


def test_all_is_every_extra():
  extras = set(INSTALLED.metadata.get_all('Provides-Extra'))
  assert extras == {*EXTRAS, 'docs', 'test', 'all'}
  assert requirements_of('all') == set().union(*(requirements_of(extra) for extra in extras - {'all'}))


@pytest.mark.parametrize('extra', EXTRAS)
def test_what_an_extra_is_asked_for_it_brings(extra):
  for module in EXTRAS[extra]:
    assert distributions_of(module) & requirements_of(extra), module


@pytest.mark.parametrize('path', sorted((ROOT / 'hyperagent_jax').rglob('*.py')), ids=lambda p: p.stem)
def test_the_library_imports_only_what_it_always_brings(path):
  name = '.'.join(path.relative_to(ROOT / 'hyperagent_jax').with_suffix('').parts)
  optional = {'envs.atari': {'ale_py'}, 'envs.bsuite.tasks': {'bsuite'}, 'scores.bsuite': {'bsuite'}}.get(name, set())
  # A function may import what only its callers have, such as gymnasium's spaces.
  for module in imports_of(path, inside_functions=False) - optional:
    assert distributions_of(module) & requirements_of(''), module


@pytest.mark.parametrize('kind', ['common', 'deep_sea', 'atari', 'bsuite', 'tabular'])
def test_an_experiment_imports_only_what_its_extras_bring(kind):
  brought = requirements_of('').union(*map(requirements_of, {'experiments', 'figures', kind} & set(EXTRAS)))
  for path in (ROOT / 'experiments' / kind).rglob('*.py'):
    for module in imports_of(path):
      assert distributions_of(module) & brought, f'{path}: {module}'


def test_every_command_is_known():
  assert commands_of('experiments') == set(COMMANDS)


NEEDED = {**COMMANDS, **dict.fromkeys(sorted(commands_of('benchmarks')), (*DRAWN, 'atari', 'bsuite'))}


@pytest.mark.parametrize(('command', 'extra'), [(c, extra) for c, extras in NEEDED.items() for extra in extras])
def test_a_missing_extra_is_one_line(command, extra):
  program = WITHOUT.format(lacked=LACKED[extra], command=command)
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60)
  assert done.returncode == 1, done.stderr
  assert re.fullmatch(rf"[\w.]+: {LACKED[extra]}.*: not installed; pip install -e '\.\[{extra}\]'.*\n", done.stderr)
  assert not done.stdout


@pytest.mark.parametrize('look_up', [import_figures, import_atari_figures, import_report])
def test_figures_that_cannot_be_drawn_are_refused_before_training(look_up, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(ConfigError, match=r"--figures: matplotlib: not .*\[figures\]'.*, and --nofigures does without"):
    look_up()


def test_events_that_cannot_be_written_are_refused(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(ConfigError, match=r"--tensorboard: tensorboardX: not .*\[figures\]'.*--notensorboard"):
    TensorBoard(str(tmp_path), enabled=True)
  assert not missing('figures', modules=['matplotlib'])


def test_a_wheel_of_the_library_alone_is_built_from_the_sdist(tmp_path):
  source = tmp_path / 'source'  # building writes into it
  for folder in ('hyperagent_jax', 'experiments', 'benchmarks', 'tests'):
    shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns('results', '__pycache__'))
  for path in ROOT.iterdir():
    if path.is_file() and path.name[0] != '.':
      shutil.copy(path, source)
  command = [sys.executable, '-m', 'build', '--no-isolation', f'--outdir={tmp_path}', str(source)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stdout + done.stderr
  (wheel,), (sdist,) = tmp_path.glob('*.whl'), tmp_path.glob('*.tar.gz')
  with zipfile.ZipFile(wheel) as archive:
    held = {name for name in archive.namelist() if '.dist-info/' not in name}
  here = [p for p in (ROOT / 'hyperagent_jax').rglob('*') if p.suffix in ('.py', '.csv', '.typed')]
  assert held == {str(p.relative_to(ROOT)) for p in here}
  with tarfile.open(sdist) as archive:
    folders = {name.split('/')[1] for name in archive.getnames() if name.count('/') > 1}
  assert folders == {'hyperagent_jax', 'hyperagent_jax.egg-info'}


def test_an_import_that_is_no_command_raises_what_an_import_raises(monkeypatch):
  monkeypatch.setattr('experiments.common.extras._is_installed', lambda module: module != 'ale_py')
  with pytest.raises(ModuleNotFoundError, match=r'experiments.atari: ale_py: not installed'):
    require('experiments.atari', 'atari')
