"""Where the time of a training step goes: the runner's program with its parts named, and a profile of it."""

import pathlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import programs
from hyperagent_jax.interaction import make_interaction
from hyperagent_jax.runner import STATE_AXES, RunnerState, make_train_loop
from hyperagent_jax.seeds import default_seed_axis, over_seeds

PARTS = ('emulator', 'act', 'add', 'sample', 'update', 'draw')
_PREFIX = 'part_'


class TimeLine(NamedTuple):
  """Seconds of a profiled run."""

  wall: float  # from the first event to the last
  busy: float  # in which the device computes or copies
  parts: dict[str, float]  # device time by part; 'rest' for what belongs to none
  kernels: dict[str, float]  # by name, longest first


def _named(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
  def call(*args: Any, **kwargs: Any) -> Any:
    with jax.named_scope(_PREFIX + name):
      return f(*args, **kwargs)

  return call


def lower_training(setup: programs.Setup, options: dict[str, str] | None = None) -> jax.stages.Lowered:
  """The program of `setup.runner.run` on one device, its parts named: (state, number of steps) -> state.

  Args:
    setup: what is trained.
    options: of XLA.
  """
  named = lambda x, **names: x._replace(**{field: _named(part, getattr(x, field)) for field, part in names.items()})
  agent = named(setup.agent, act='act', update='update', draw_act='draw', draw_update='draw')
  replay = named(setup.replay, add='add', sample='sample')
  environment = named(setup.environment, step='emulator')
  interaction = make_interaction(agent, replay, environment.num_actions, setup.config)
  loop = make_train_loop(interaction, environment, setup.config, prefill=False)
  devices, axes = jax.local_devices()[:1], STATE_AXES
  over = over_seeds(loop, (axes, None), axes, devices, default_seed_axis(devices))
  return jax.jit(over, donate_argnums=0, compiler_options=options).lower(setup.state, jnp.int32(1))


def training(setup: programs.Setup) -> Callable[[Callable[..., RunnerState], int], RunnerState]:
  """A function that goes on from the setup's state, which it uses up, with a program for so many steps.

  There is one state only: a copy would be as large, and games that cannot be copied would have to start anew.
  """
  state = setup.state

  def run(program: Callable[..., RunnerState], num_steps: int) -> RunnerState:
    nonlocal state
    state = program(state, jnp.int32(num_steps))
    return state

  return run


def ring_copies(program: str, num_rows: int) -> list[str]:
  """The lines in loops of a compiled program that copy an array as long as replay's rings.

  There are none where the rings are written in place. What is copied once, before or after all steps, does not count.
  """
  lines: dict[str, list[str]] = defaultdict(list)
  calls: dict[str, set[str]] = defaultdict(set)
  computation, bodies = '', set()
  for line in program.splitlines():
    if m := re.match(r'(?:ENTRY )?%?([\w.\-]+) [({]', line):
      computation = m[1]
    lines[computation].append(line.strip())
    calls[computation] |= set(re.findall(r'(?:calls|to_apply|body|condition)=%?([\w.\-]+)', line))
    for branches in re.findall(r'(?:branch_computations|called_computations)=\{([^}]*)\}', line):
      calls[computation] |= {x.strip().lstrip('%') for x in branches.split(',')}
    calls[computation] |= set(re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', line))
    bodies |= set(re.findall(r'body=%?([\w.\-]+)', line))
  in_loops, new = set(), bodies
  while new:
    in_loops |= new
    new = set().union(*(calls[x] for x in new)) - in_loops
  pattern, sizes = re.compile(r'= \(?\w+\[([\d,]*)\]\S* copy(-start)?\('), {str(num_rows), str(num_rows + 1)}
  found = [(x, m) for name in sorted(in_loops) for x in lines[name] if (m := pattern.search(x))]
  return [x for x, m in found if sizes & set(m[1].split(','))]


def profile(run: Callable[[], Any], program: str) -> TimeLine:
  """Profiles a run of a compiled program, whose text says which part each of its operations belongs to.

  Raises:
    RuntimeError: if the profile holds no event of the device.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(run())
    path = next(pathlib.Path(folder).rglob('*.xplane.pb'))
    return read(jax.profiler.ProfileData.from_file(str(path)).planes, program)


def part_of_operations(program: str) -> dict[str, str]:
  """The part of every operation of a compiled program that belongs to one."""
  lines = re.finditer(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*op_name="([^"]*)"', program, re.M)
  found = ((m[1], re.findall(rf'{_PREFIX}(\w+)', m[2])) for m in lines)
  return {operation: parts[0] for operation, parts in found if parts}


def read(planes: Iterable[Any], program: str) -> TimeLine:
  """Sums up the events of a profile, as `jax.profiler.ProfileData` has them."""
  part_of = part_of_operations(program)
  parts: dict[str, float] = defaultdict(float)
  kernels: dict[str, float] = defaultdict(float)
  spans = []
  for plane in planes:
    on_device = plane.name.startswith('/device:')
    for line in plane.lines:
      # A device has a line for each stream; others repeat the same. The threads of a CPU are known by their events.
      if on_device and not line.name.startswith('Stream'):
        continue
      for event in line.events:
        stats = {k: v for k, v in event.stats if k}
        operation = stats.get('hlo_op')
        if not on_device and operation is None:
          continue
        seconds = event.duration_ns / 1e9
        spans.append((event.start_ns, event.start_ns + event.duration_ns))
        parts[part_of.get(str(operation), 'rest')] += seconds
        kernels[event.name] += seconds
  if not spans:
    raise RuntimeError('the profile holds no event of the device')
  longest = dict(sorted(kernels.items(), key=lambda item: -item[1]))
  wall = max(end for _, end in spans) - min(start for start, _ in spans)
  return TimeLine(wall / 1e9, _covered(spans) / 1e9, dict(parts), longest)


def _covered(spans: list[tuple[float, float]]) -> float:
  """The length of the union of intervals."""
  total, reached = 0.0, float('-inf')
  for start, end in sorted(spans):
    total += max(0.0, end - max(start, reached))
    reached = max(reached, end)
  return total
