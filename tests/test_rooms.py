"""The rooms of the house: what may import what, read from every import statement."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
KINDS = ('deep_sea', 'atari', 'bsuite', 'tabular')
# Of the library, lowest first: a module imports only from floors below its own, a package also from itself.
FLOORS = (
  ('types', 'scores.data'),
  ('distributions', 'losses', 'optimizers', 'torsos', 'seeds', 'replay', 'envs.deep_sea'),
  ('config', 'envs.adapters', 'envs.history', 'scores.atari'),
  ('presets', 'networks', 'envs.atari', 'envs.bsuite'),
  ('agent', 'scores.bsuite'),
  ('build', 'evaluation', 'checks'),
  ('interaction', 'baselines', 'tabular'),
  ('statistics',),
  ('runner', 'host'),
)
PACKAGES = ('envs', 'scores')  # whose __init__ only gathers what is in them


def modules(*folders):
  """Module name -> file of all modules in these folders of the checkout."""
  found = {}
  for folder in folders:
    for path in sorted((ROOT / folder).rglob('*.py')):
      found['.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')] = path
  return found


ALL = modules('hyperagent_jax', 'experiments', 'benchmarks', 'examples')


def imports_of(path):
  """The project's modules that a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: imports are absolute'
      # A name may be a module of the package or something in it.
      names = [f'{node.module}.{a.name}' if f'{node.module}.{a.name}' in ALL else node.module for a in node.names]
    else:
      continue
    yield from (
      name for name in names if name.split('.')[0] in ('hyperagent_jax', 'experiments', 'benchmarks', 'examples')
    )


def test_the_imports_are_read():
  assert 'hyperagent_jax.interaction' in set(imports_of(ALL['hyperagent_jax.runner']))
  assert 'experiments.common.checkpoint' in set(imports_of(ALL['experiments.common.training']))
  assert len(ALL) > 100


def test_every_kind_of_experiment_is_known():
  found = {p.name for p in (ROOT / 'experiments').iterdir() if (p / '__init__.py').exists()}
  assert found == {*KINDS, 'common', 'studies'}


@pytest.mark.parametrize('name', [m for m in ALL if m.startswith('experiments.')])
def test_no_kind_of_experiment_imports_another(name):
  kind = name.split('.')[1]
  allowed = {'common'} if kind not in KINDS else {'common', kind}
  for imported in imports_of(ALL[name]):
    top, *rest = imported.split('.')
    assert top == 'hyperagent_jax' or (top == 'experiments' and rest and rest[0] in allowed), f'{name} <- {imported}'


def floor_of(module):
  """The floor and the room of a module of the library."""
  name = module.removeprefix('hyperagent_jax.')
  for number, rooms in enumerate(FLOORS):
    for room in rooms:
      if name == room or name.startswith(f'{room}.'):
        return number, room
  return None


@pytest.mark.parametrize('name', [m for m in ALL if m.startswith('hyperagent_jax.')])
def test_no_floor_of_the_library_imports_a_higher_one(name):
  if name.removeprefix('hyperagent_jax.') in PACKAGES:
    assert all(imported.startswith(f'{name}.') for imported in imports_of(ALL[name]))
    return
  assert floor_of(name), f'{name} is on no floor'
  floor, room = floor_of(name)
  for imported in imports_of(ALL[name]):
    assert imported.startswith('hyperagent_jax.'), f'{name} <- {imported}'
    below, other = floor_of(imported) or (len(FLOORS), imported)
    assert below < floor or other == room, f'{name} <- {imported}'


def test_benchmarks_and_examples_are_imported_by_nobody():
  for name, path in ALL.items():
    if name.split('.')[0] in ('hyperagent_jax', 'experiments'):
      assert not [m for m in imports_of(path) if m.split('.')[0] in ('benchmarks', 'examples')], name
