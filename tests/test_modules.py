"""Every module can be imported, and every command says what it takes: a quick look at a new Python or a new jax."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ('hyperagent_jax', 'experiments', 'benchmarks', 'examples')
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


def names_in(folder, taken=lambda text: True):
  """The modules of a folder of the checkout whose text is taken."""
  paths = [path for path in sorted((ROOT / folder).rglob('*.py')) if taken(path.read_text())]
  return ['.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__') for path in paths]


def takes_flags(text):
  """Whether it is of a command, neither a former name of one nor one that takes words."""
  return "__name__ == '__main__'" in text and 'runpy' not in text and 'sys.argv[1' not in text


def each(action, names):
  """Name of a module -> exit status and what was written, of importing it or of asking it for help."""
  command = [sys.executable, '-c', EACH, action, *names]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_module_can_be_imported(folder):
  names = names_in(folder, lambda text: not takes_flags(text))  # those that take flags are asked for them below
  assert each('import', names) == {name: [0, ''] for name in names}


def test_every_command_shows_its_flags():
  commands = [name for folder in ('experiments', 'benchmarks') for name in names_in(folder, takes_flags)]
  assert len(commands) > 15
  for name, (_, text) in each('help', [name.removesuffix('.__main__') for name in commands]).items():
    assert '\nflags:\n' in text and 'Traceback' not in text, f'{name}: {text}'
    assert '--output_dir' in text or name == 'benchmarks.atari_parity', name
