"""Every benchmark at its smallest: that it runs, what it prints and writes, and that alternatives do the same work."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

import hyperagent_jax as ha
from benchmarks import alternatives, memory, parts, programs, timing
from hyperagent_jax import Extras
from hyperagent_jax.types import FIRST, LAST, MID, TimeStep


def load(name):
  """A benchmark, whose flags are mere values: each is a command of its own, and all have some of the same names."""
  flag = lambda name, default, help: SimpleNamespace(value=default)
  kinds = ('DEFINE_bool', 'DEFINE_string', 'DEFINE_list', 'DEFINE_integer')
  with mock.patch.multiple(flags, **dict.fromkeys(kinds, flag)):
    return importlib.import_module(f'benchmarks.{name}')


atari, atari_parity, bsuite = load('atari'), load('atari_parity'), load('bsuite')
choices, throughput = load('choices'), load('throughput')

SIZE = 6
SCALE = choices.Scale((SIZE,), fill=60, capacity=200, rings=(200,), seeds=2, steps=(12, 12), repeats=1)


def run_main(monkeypatch, capsys, main, **values):
  """A benchmark's main in this process, with these flags and whatever devices there are; what it prints."""
  module = sys.modules[main.__module__]
  for name, value in values.items():
    monkeypatch.setattr(getattr(module, f'_{name.upper()}'), 'value', value)
  monkeypatch.setattr(timing, 'use_all_cores', lambda: None)  # JAX has started
  main([])
  return capsys.readouterr().out


@pytest.fixture
def once(monkeypatch):
  """Every case is called once, not in turns: each loop of a benchmark is compiled and run, little more."""
  monkeypatch.setattr(
    timing, 'alternate', lambda cases, repeats: {name: timing.summary([case()]) for name, case in cases.items()}
  )


def numbers(text, what):
  """The positive numbers on the lines that begin with something."""
  found = re.findall(rf'^ *{re.escape(what)} +([\d.,]+)', text, re.MULTILINE)
  return [float(x.replace(',', '')) for x in found]


# ------------------------------------------------------------------------------------------------------------- DeepSea


@pytest.fixture
def small_deep_sea(monkeypatch):
  preset = ha.presets.deep_sea
  monkeypatch.setattr(ha.presets, 'deep_sea', lambda size=SIZE: dataclasses.replace(preset(SIZE), batch_size=8))


LONG = ('seeds', 'prior', 'prng')  # most programs to compile


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in choices.STUDIES]
)
def test_a_study_of_choices_measures_every_alternative_and_draws_them(monkeypatch, capsys, tmp_path, once, name):
  monkeypatch.setattr(choices, 'WHOLE', SCALE)
  out = run_main(monkeypatch, capsys, choices.main, studies=[name], quick=False, output_dir=str(tmp_path))
  title, _ = choices.STUDIES[name]
  assert title in out
  measured = [line.split() for line in out.splitlines() if line.startswith('    ')]
  assert len(measured) >= 2
  assert all(float(line[-3].replace(',', '')) > 0 for line in measured)
  assert (tmp_path / f'choices_{name}.png').stat().st_size > 5_000
  assert not (tmp_path / 'choices.csv').exists()  # of all studies together


def test_all_studies_together_are_one_table_and_a_quick_look_writes_nothing(monkeypatch, capsys, tmp_path):
  study = lambda scale: [choices.Comparison(f'{scale.repeats} times', 'µs', {'a': lambda: 3.0, 'b': lambda: 4.0})]
  monkeypatch.setattr(choices, 'STUDIES', {'one': ('One', study), 'two': ('Two', study)})
  options = {'studies': ['one', 'two'], 'output_dir': str(tmp_path)}
  assert '1 times' in run_main(monkeypatch, capsys, choices.main, quick=True, **options)
  assert list(tmp_path.iterdir()) == []
  run_main(monkeypatch, capsys, choices.main, quick=False, **options)
  rows = (tmp_path / 'choices.csv').read_text().splitlines()
  assert rows[0] == 'study,what,choice,median,min,max,unit,repeats,hardware'
  assert [row.split(',')[:4] for row in rows[1:]] == [
    [study, '5 times', *case] for study in ('one', 'two') for case in (['a', '3'], ['b', '4'])
  ]


@pytest.mark.long
def test_throughput_tells_of_programs_parts_and_memory(monkeypatch, capsys, tmp_path, once, small_deep_sea):
  monkeypatch.setattr(throughput, '_FILL', 60)
  monkeypatch.setattr(programs.make_setup, '__defaults__', (1, 200, *programs.make_setup.__defaults__[2:]))
  out = run_main(monkeypatch, capsys, throughput.main, quick=True, output_dir=str(tmp_path))
  for what in (throughput.EXACT_20, throughput.SAMPLED_20, throughput.TEN_SEEDS, throughput.EXACT_100, throughput.HOST):
    assert [x > 0 for x in numbers(out, what)] == [True], what
  for what in (*parts.PARTS, 'whole step', 'sum of parts'):
    for size in throughput.SIZES:
      assert [x > 0 for x in numbers(out, f'size {size}: {what}')] == [True], what
  assert numbers(out, 'exact / 20 indices')[0] == pytest.approx(
    numbers(out, throughput.EXACT_20)[0] / numbers(out, throughput.SAMPLED_20)[0], abs=0.011
  )
  assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_memory_of_a_process_is_what_replay_takes_and_more():
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-m', 'benchmarks.memory', str(SIZE), '20000', '60']
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  assert 5e7 < int(done.stdout.split()[-1]) < 3e9
  config = ha.presets.deep_sea(SIZE)
  assert memory.replay_bytes(config, 2_000) == pytest.approx(memory.replay_bytes(config, 1_000) * 2, rel=0.01)
  remembered = dataclasses.replace(config, prior_storage='replay')
  assert memory.replay_bytes(remembered) > 2 * memory.replay_bytes(config)


def test_whole_transitions_and_time_steps_are_the_same_replay():
  """What the two ways to store them let draw is the same, so that their times can be compared."""
  kinds = [FIRST, MID, LAST, FIRST, LAST, FIRST, FIRST, MID]  # the sixth is abandoned
  ours, theirs = ha.make_replay(100, 1, 1, 0.9), alternatives.make_transition_replay(100, 0.9)
  states = None
  for t, kind in enumerate(kinds):
    one = lambda x: jnp.full((1,), x)
    step = TimeStep(one(kind), one(float(t)), one(0.5), one(t)), one(t % 2), Extras()
    states = states or [replay.init(*step) for replay in (ours, theirs)]
    states = [r.add(s, *step, reads_done=jnp.float32(t)) for r, s in zip((ours, theirs), states, strict=True)]
  sizes = [int(r.size(s)) for r, s in zip((ours, theirs), states, strict=True)]
  assert sizes[0] == sizes[1] == 4
  bits = jnp.arange(4, dtype=jnp.uint32)
  drawn = [r.sample(s, bits) for r, s in zip((ours, theirs), states, strict=True)]
  jax.tree.map(np.testing.assert_allclose, *drawn)


# --------------------------------------------------------------------------------------------------- Atari and bsuite


def test_parity_holds_on_a_game_and_a_difference_is_told(monkeypatch, capsys):
  run = lambda: run_main(monkeypatch, capsys, atari_parity.main, games=['pong'], num_steps=60)
  assert 'pong: 60 steps' in run()
  record = atari_parity.record

  def other(game, num_steps):
    timesteps, *rest = record(game, num_steps)
    observation = timesteps.observation.copy()
    observation[30, -1, 40, 40] += 1
    return timesteps._replace(observation=observation), *rest

  monkeypatch.setattr(atari_parity, 'record', other)
  with pytest.raises(SystemExit, match='pong: observation of step 30 differs'):
    run()


def test_atari_tells_of_emulators_programs_and_parts(monkeypatch, capsys, tmp_path, once):
  small = dataclasses.replace(atari.BASE, replay_capacity=200, min_replay=40, batch_size=2)
  monkeypatch.setattr(atari, 'PROGRAMS', {atari.FAST: small})
  monkeypatch.setattr(atari, '_TORSOS', {'data_efficient': small})
  monkeypatch.setattr(atari, '_EMULATORS', ((1, 1),))
  monkeypatch.setattr(programs.make_atari_setup, '__defaults__', (1, 40))
  values = {'quick': True, 'short': False, 'num_seeds': [], 'game': 'pong', 'output_dir': str(tmp_path)}
  out = run_main(monkeypatch, capsys, atari.main, **values)
  for what in (atari.FAST, '1 games, 1 thread: inside / direct', 'data_efficient: whole step'):
    assert [x > 0 for x in numbers(out, what)] == [True], what
  for what in parts.PARTS:
    assert [x > 0 for x in numbers(out, f'data_efficient: {what}')] == [True], what
  assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_bsuite_tells_of_environments_and_training_and_writes_both(monkeypatch, capsys, tmp_path, once):
  monkeypatch.setattr(bsuite, 'INSTANCES', 8)
  monkeypatch.setattr(bsuite, 'SCANNED', 5)
  monkeypatch.setattr(bsuite, 'STEPPED', ('catch/0', 'deep_sea/5'))
  monkeypatch.setattr(bsuite, 'HISTORIES', (1, 4))
  ids = bsuite.envs.parse_ids
  monkeypatch.setattr(bsuite.envs, 'parse_ids', lambda text: ids(text)[:2])
  rows = bsuite.stepping_rows, bsuite.training_rows
  monkeypatch.setattr(bsuite, 'stepping_rows', lambda quick: rows[0](True))
  monkeypatch.setattr(bsuite, 'training_rows', lambda quick: rows[1](True))
  out = run_main(monkeypatch, capsys, bsuite.main, quick=False, output_dir=str(tmp_path))
  for what in ('catch/0, XLA', 'deep_sea/5, bsuite', 'cartpole/0, fused', 'memory_len/22, history of 4, fused'):
    assert [x > 0 for x in numbers(out, what)] == [True], what
  header, *written = (tmp_path / 'bsuite.csv').read_text().splitlines()
  assert header == 'what,value,unit,bar,hardware' and len(written) == 6 + 5 + 2
