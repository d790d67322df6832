"""Every module can be imported, and every command says what it takes: a quick look at a new Python or a new jax."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ('hyperagent_jax', 'experiments', 'benchmarks', 'examples')
COMMANDS = (
  *('experiments.deep_sea', 'experiments.deep_sea.figures', 'experiments.deep_sea.studies'),
  *('experiments.deep_sea.studies.posterior_quality', 'experiments.deep_sea.studies.report'),
  *('experiments.atari', 'experiments.atari.figures', 'experiments.atari.stages'),
  *('experiments.bsuite', 'experiments.bsuite.report', 'experiments.tabular'),
  *(f'benchmarks.{name}' for name in ('atari', 'atari_parity', 'bsuite', 'choices', 'throughput')),
)
# Each module by itself, as if in a process of its own, but that what most of them import is imported once.
EACH = """
import importlib, json, os, runpy, sys, tempfile
import ale_py, bsuite, hyperagent_jax, matplotlib.figure, orbax.checkpoint, scipy

def outcome(action):
  with tempfile.TemporaryFile() as file:
    child = os.fork()
    if not child:
      os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
      sys.stdout.reconfigure(write_through=True)
      action()
      os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    file.seek(0)
    return status, file.read().decode()

def show_help(name):
  sys.argv = [name, '--help']
  runpy.run_module(name, run_name='__main__', alter_sys=True)

action = show_help if sys.argv[1] == 'help' else importlib.import_module
print(json.dumps({name: outcome(lambda: action(name)) for name in sys.argv[2:]}))
"""


def each(action, names):
  """Name of a module -> exit status and what was written, of importing it or of asking it for help."""
  command = [sys.executable, '-c', EACH, action, *names]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_module_can_be_imported(folder):
  paths = sorted((ROOT / folder).rglob('*.py'))
  names = ['.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__') for path in paths]
  assert each('import', names) == {name: [0, ''] for name in names}


def test_every_command_shows_its_flags():
  for name, (_, text) in each('help', COMMANDS).items():
    assert '\nflags:\n' in text and 'Traceback' not in text, f'{name}: {text}'
    assert '--output_dir' in text or name == 'benchmarks.atari_parity', name
