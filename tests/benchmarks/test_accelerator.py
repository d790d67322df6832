"""The benchmark of accelerators, at tiny sizes: its rows, its budget, and how it reads programs and profiles."""

import math
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import hyperagent_jax as ha
from benchmarks import accelerator, accelerator_figure, accelerator_parts, accelerator_programs, time_line, timing
from benchmarks.accelerator_parts import Update, update_case, update_config, update_flops
from benchmarks.accelerator_programs import Program
from benchmarks.accelerator_rows import COLUMNS, ERROR, FILE, LEFT_OUT, Case, Session, read, run_cases
from hyperagent_jax.types import Extras, HyperQ, Transition


@pytest.fixture
def session(tmp_path):
  return Session('part', tmp_path, time.monotonic() + 600, True, 'a card', '7')


def rows_of(session):
  return read(session.folder / FILE)


# -------------------------------------------------------------------------------------------------- rows and the budget


def test_rows_are_complete_and_a_second_process_adds_to_them(session):
  session.write('speed', 1234.5678, 'steps/s', 4, 'a note')
  session._replace(part='other').leave_out('more', 'no time')
  text = (session.folder / FILE).read_text()
  assert text == (
    f'{",".join(COLUMNS)}\n7,part,speed,4,1234.57,steps/s,a note,a card\n7,other,more,,,left out,no time,a card\n'
  )


def test_a_case_that_fails_costs_its_own_rows_only(session):
  def broken():
    raise RuntimeError('no memory\nleft')

  good = Case('good', lambda: lambda: session.write('good', 1, ''))
  cases = [good, Case('compiling', broken), Case('measuring', lambda: broken), good]
  assert run_cases(session, cases, at_once=2) == 2
  rows = rows_of(session)
  assert [row['what'] for row in rows] == ['good', 'compiling', 'measuring', 'good']
  assert [row['unit'] for row in rows] == ['', ERROR, ERROR, '']
  assert rows[1]['note'] == 'RuntimeError: no memory left'


def test_what_no_time_is_left_for_is_named_and_not_started(session):
  def slow():
    time.sleep(0.2)
    return lambda: session.write('first', 1, '')

  never = lambda: pytest.fail('there is no time left')
  short = session._replace(deadline=time.monotonic() + 0.1)
  assert run_cases(short, [Case('first', slow), Case('second', never), Case('third', never)]) == 0
  rows = rows_of(session)
  assert [row['what'] for row in rows] == ['first', '2 cases'] and rows[1]['unit'] == LEFT_OUT
  assert 'second; third' in rows[1]['note']


def test_a_part_that_hangs_is_killed_and_one_that_fails_is_told(tmp_path):
  run = lambda code, seconds: accelerator.run_alone([sys.executable, '-c', code], seconds, {'WORD': '3'})
  assert run('import os, sys; sys.exit(os.environ["WORD"] != "3")', 60.0) == ''
  assert run('import sys; sys.exit(5)', 60.0) == 'exit status 5'
  # What it started ends with it.
  path = tmp_path / 'alive'
  child = f'import time; time.sleep(4); open({str(path)!r}, "w")'
  code = f'import subprocess, sys, time; subprocess.Popen([sys.executable, "-c", {child!r}]); time.sleep(60)'
  start = time.monotonic()
  assert run(code, 1.0) == 'killed after 1 s'
  assert time.monotonic() - start < 4
  time.sleep(4)
  assert not path.exists()


def test_time_that_a_part_leaves_goes_to_those_after_it(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(accelerator.time, 'monotonic', lambda: clock[0])
  monkeypatch.setattr(accelerator, 'PARTS', {'a': (None, 0.25), 'b': (None, 0.25), 'c': (None, 0.5)})
  given = {}

  def start(name, seconds):
    given[name] = seconds
    clock[0] += {'a': 5.0, 'b': 60.0, 'c': 0.0}[name]
    return 'broke' if name == 'b' else ''

  assert accelerator.run_parts(['a', 'b', 'c'], start, 100.0) == {'b': 'broke'}
  assert given == pytest.approx({'a': 25.0, 'b': 95 / 3, 'c': 35.0})


def test_a_part_that_breaks_before_its_cases_is_a_row(monkeypatch, tmp_path):
  def broken(session):
    raise ValueError('no device')

  monkeypatch.setattr(accelerator, 'PARTS', {'facts': (broken, 1.0)})
  assert accelerator.run_part('facts', tmp_path, 5.0, reduced=True) == 1
  (row,) = read(tmp_path / FILE)
  assert (row['part'], row['unit'], row['note']) == ('facts', ERROR, 'ValueError: no device')
  assert row['hardware'] == timing.hardware()


# ------------------------------------------------------------------------------------------- programs and profiles read

PROGRAM = """HloModule jit_spread

%inner (p: f32[7,503]) -> f32[7,503] {
  ROOT %copy.1 = f32[7,503]{1,0} copy(%p)
}

%body (p: (s32[], f32[503,4])) -> (s32[], f32[503,4]) {
  %copy.2 = f32[504,4]{1,0} copy(%x)
  %copy.3 = f32[64,4]{1,0} copy(%y), metadata={op_name="jit(spread)/while/body/vmap(part_act)/dot"}
  %fusion.9 = f32[7]{0} fusion(%copy.3), calls=%inner, metadata={op_name="jit(s)/transpose(jvp(part_update))/mul"}
  ROOT %dot.1 = f32[7]{0} dot(%a, %b), metadata={op_name="jit(s)/broadcast"}
}

ENTRY %main (p: f32[503,4]) -> f32[503,4] {
  %copy.4 = f32[503,4]{1,0} copy(%p)
  ROOT %while.1 = (s32[], f32[503,4]) while(%t), condition=%cond, body=%body
}
"""


def test_copies_of_a_ring_count_where_every_step_makes_them():
  found = time_line.ring_copies(PROGRAM, 503)
  assert [x.split(' = ')[0] for x in found] == ['%copy.2', 'ROOT %copy.1']
  assert time_line.ring_copies(PROGRAM, 64) == [x.strip() for x in PROGRAM.splitlines() if '%copy.3 =' in x]
  assert time_line.ring_copies(PROGRAM, 999) == []


def test_a_profile_is_summed_up_by_part():
  assert time_line.part_of_operations(PROGRAM) == {'copy.3': 'act', 'fusion.9': 'update'}

  def event(name, start, duration, operation=None):
    stats = [] if operation is None else [('hlo_op', operation)]
    return SimpleNamespace(name=name, start_ns=start * 1e9, duration_ns=duration * 1e9, stats=stats)

  line = lambda name, *events: SimpleNamespace(name=name, events=events)
  stream = line('Stream #1', event('k1', 10, 2, 'copy.3'), event('k2', 11, 3, 'fusion.9'), event('memcpy', 18, 1))
  other = line('Stream #2', event('k2', 19, 1, 'fusion.9'))
  device = SimpleNamespace(name='/device:GPU:0', lines=[stream, other, line('XLA Ops', event('k1', 0, 99, 'copy.3'))])
  host = SimpleNamespace(name='/host:CPU', lines=[line('python', event('f', 0, 99))])
  result = time_line.read([device, host], PROGRAM)
  assert (result.wall, result.busy) == pytest.approx((10.0, 6.0))  # 10 to 14, 18 to 20
  assert result.parts == pytest.approx({'act': 2.0, 'update': 4.0, 'rest': 1.0})
  assert list(result.kernels) == ['k2', 'k1', 'memcpy']
  with pytest.raises(RuntimeError, match='no event'):
    time_line.read([host], PROGRAM)


@pytest.mark.parametrize('torso', ['nature', 'data_efficient'])
def test_operations_of_an_update_are_those_of_the_products_in_its_program(torso):
  config, num_actions = update_config(torso, 'products', batch_size=2), 6
  agent = ha.make_hyperagent(ha.make_network(config, num_actions), ha.make_optimizer(config), config)
  floats = lambda *shape: jnp.zeros((2, *shape))
  extras = Extras(noise=floats(config.index_dim), prior_q=HyperQ(floats(6), floats(6, config.index_dim)))
  screens = jnp.zeros((2, 4, 84, 84), jnp.uint8)
  batch = Transition(screens, jnp.zeros((2,), jnp.int32), floats(), floats(), screens, extras, extras)
  key = jax.random.key(0)
  learner = jax.eval_shape(agent.init, key, screens[0])
  program = jax.jit(agent.update).lower(learner, batch, key, jnp.int32(9)).as_text()
  assert products(program) == pytest.approx(update_flops(config, num_actions), rel=1e-9)


def products(text):
  """Operations of all matrix products of a lowered program; a norm's product of two vectors is none."""
  total = 0
  pattern = r'stablehlo.dot_general.*contracting_dims = \[([\d, ]*)\].*\(tensor<([^>]*)>.*-> tensor<([^>]*)>'
  for contracted, left, out in re.findall(pattern, text):
    if 'x' not in out:
      continue
    sizes = left.split('x')[:-1]
    inner = math.prod(int(sizes[int(i)]) for i in contracted.split(','))
    total += 2 * inner * math.prod(int(n) for n in out.split('x')[:-1])
  return total


# ------------------------------------------------------------------------------------------------------- the real thing


def test_a_tiny_program_on_pong_is_timed_and_profiled(session):
  case = accelerator_programs.whole_program(session, Program('data_efficient', 'windows', 1), lined=True)
  assert run_cases(session, [case]) == 0
  rows = {row['what']: row for row in rows_of(session)}
  name = 'training, data_efficient, windows, default'
  assert rows[name]['unit'] == 'interactions/s' and 1 < float(rows[name]['value']) < 1e5
  assert rows[f'{name}: copies of rings']['value'] == '0'
  line = {what.split(': ')[1]: float(row['value']) for what, row in rows.items() if what.startswith('time line')}
  assert {'step', 'device idle', 'update', 'act', 'add', 'sample', 'emulator'} <= set(line)
  assert line['step'] > line['device idle'] >= 0
  assert line['update'] > line['act'] > 0  # on four transitions, forwards and backwards, and on one screen


def test_updates_are_set_against_the_rate_of_the_device(session):
  case = update_case(session, Update('data_efficient', 'windows', 'tf32', 2), {'tf32': 1e-6})
  assert run_cases(session, [case]) == 0
  micros, ratio = (row for row in rows_of(session) if row['unit'] != 's')
  assert micros['unit'] == 'us' and micros['seeds'] == '2' and 'TFLOP/s' in micros['note']
  flops = 2 * update_flops(update_config('data_efficient', 'windows', batch_size=4), 6)
  assert float(ratio['value']) == pytest.approx(float(micros['value']) / flops, rel=1e-4)  # at 1e6 a second


def test_the_binary_writes_rows_from_a_process_for_each_part_and_tells_of_failures(tmp_path):
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-m', 'benchmarks.accelerator', '--reduced', f'--output_dir={tmp_path}', '--run=3']
  run = lambda *more: subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=120)
  done = run('--parts=updates', '--minutes=0')  # no time: what is left out is told
  assert done.returncode == 0, done.stderr
  rows = read(tmp_path / FILE)
  assert {(row['run'], row['part'], row['hardware']) for row in rows} == {('3', 'updates', timing.hardware())}
  assert [(row['what'], row['unit']) for row in rows] == [('update, impala', LEFT_OUT), ('2 cases', LEFT_OUT)]
  wrong = run('--parts=updates,nonsense')
  assert wrong.returncode == 1 and 'no part nonsense' in wrong.stderr


def test_learning_reads_the_newest_row_of_every_seed(session):
  folder = session.folder / 'pong'
  accelerator_programs.learning_rows(session, 'pong', folder, 'note')
  assert rows_of(session)[0]['unit'] == LEFT_OUT
  folder.mkdir()
  header = 'seed,env_step,eval_episode_return,normalized_return,step_rate\n'
  (folder / 'results.csv').write_text(header + '0,10,-21,0,nan\n1,10,-21,0,nan\n0,20,-3,0.5,90\n1,20,1,0.7,90\n')
  accelerator_programs.learning_rows(session, 'pong', folder, 'note')
  found = {row['what'].split(': ')[1]: float(row['value']) for row in rows_of(session)[1:]}
  expected = {'interactions of a seed': 20, 'mean return': -1, 'human-normalized': 0.6, 'latest speed': 90}
  assert found == pytest.approx(expected)


def test_the_committed_rows_name_the_card_and_can_be_drawn(tmp_path):
  rows = read(timing.RESULTS / FILE)
  assert all(row['hardware'] for row in rows)
  (tmp_path / FILE).write_bytes((timing.RESULTS / FILE).read_bytes())
  accelerator_figure.main(tmp_path)
  assert (tmp_path / 'accelerator.png').stat().st_size > 10_000


def test_every_part_has_a_function_and_shares_sum_to_no_more_than_the_time_with_its_overruns():
  assert next(iter(accelerator.PARTS)) == 'facts'  # whose rates the others read
  assert all(callable(part) and share > 0 for part, share in accelerator.PARTS.values())
  cases = accelerator_parts.update_cases(reduced=False)
  assert len(set(cases)) == len(cases)
  assert {case.num_seeds for case in cases} == {1, 4, 16, 64}
  assert {case.precision for case in cases} == {'tf32', 'float32', 'bfloat16'}
