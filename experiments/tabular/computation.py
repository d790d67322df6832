"""What an episode costs with k episodes behind it: operations, seconds, bytes.

HyperAgent keeps M numbers for each state and action, PSRL and tabular RLSVI keep counts: an episode costs them the
same at any k. RLSVI and LMC-LSVI as they are written for function approximation go through all data each episode.
"""

import functools
import itertools
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.tabular.study import COLOURS, Row, Study, TabularConfig, column, groups, new_figure, slope
from hyperagent_jax.seeds import num_cores
from hyperagent_jax.tabular import Episode, Problem, TabularAgent, make_hyperagent, make_psrl, make_rlsvi
from hyperagent_jax.tabular.refitting import Data, Refitted, make_lmc_lsvi_refit, make_rlsvi_refit

COLUMNS = ('agent', 'episodes', 'operations', 'seconds', 'bytes')
MEASURES = {
  'operations': 'operations per episode',
  'seconds': 'seconds per episode',
  'bytes': "bytes of the agent's state",
}
CHUNK = 16  # episodes timed together, so that starting a program weighs little
NUM_ROUNDS = 41
DASHED = ('RLSVI (counts)', 'LMC-LSVI (data)')

# A random word: two initial additions, 20 rounds of addition, rotation (2 shifts and an or) and exclusive or, 5 times 3
# additions of the key, and the exclusive or of the two halves (Threefry-2x32; Salmon et al. 2011).
RANDOM_WORD = 2 + 20 * 5 + 5 * 3 + 1
MOVES = frozenset(
  'bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy dynamic_slice gather iota reshape rev '
  'scatter slice squeeze stack transpose unstack'.split()
)


def operations(f: Callable[..., Any], *args: Any) -> int:
  """Arithmetic operations of a function, counted in its jaxpr.

  XLA's own `cost_analysis` will not do: it counts the body of a loop once however often it runs, and random numbers
  are a loop inside. Here a scan counts as often as it runs. An elementwise operation counts one for each entry of its
  result, a reduction or a scattered sum one for each entry that goes in, a matrix product two for each of its
  products, a random word `RANDOM_WORD`; moving and converting is free. A while loop counts once, since how often it
  runs depends on the data: of our agents only PSRL has one, which draws a few in a hundred entries again.

  Args:
    f: a function of arrays.
    *args: its arguments, of which shapes alone matter.

  Raises:
    ValueError: on a primitive that is none of these.
  """
  return _count(jax.make_jaxpr(f)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
  return sum(_cost(equation) for equation in jaxpr.eqns)


def _cost(equation: Any) -> int:
  name, params = equation.primitive.name.replace('-', '_'), equation.params
  given, made = ([math.prod(v.aval.shape) for v in side] for side in (equation.invars, equation.outvars))
  if name in MOVES:
    return 0
  if name in ('jit', 'pjit'):
    return _count(params['jaxpr'].jaxpr)
  if name == 'call_hi_primitive':  # newer jax keeps `nonzero` in one piece, which knows what it is made of
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    return _count(jax.make_jaxpr(params['_prim'].expand)(*shapes).jaxpr)
  if name == 'scan':
    return params['length'] * _count(params['jaxpr'].jaxpr)
  if name == 'while':
    return _count(params['cond_jaxpr'].jaxpr) + _count(params['body_jaxpr'].jaxpr)
  if name in ('random_bits', 'random_split', 'random_fold_in'):
    return RANDOM_WORD * made[0]
  if name == 'scatter_add':
    return given[2]  # the operand and the indices come first
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    return 2 * made[0] * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
  if name.startswith(('reduce_', 'arg', 'cum')):
    return given[0]
  if len(made) != 1 or max(given) > made[0]:
    raise ValueError(f'{name}: neither elementwise nor any other operation that is counted')
  return made[0]


def make_agents(problem: Problem, index_dim: int) -> dict[str, TabularAgent]:
  """Who is compared, by name."""
  return {
    'HyperAgent': make_hyperagent(problem, index_dim),
    'PSRL': make_psrl(problem),
    'RLSVI (counts)': make_rlsvi(problem),
    'RLSVI (refitting)': make_rlsvi_refit(problem),
    'LMC-LSVI (data)': make_lmc_lsvi_refit(problem),
  }


def random_data(problem: Problem, seed: int) -> Data:
  """K episodes of states and actions at random; what they are does not matter to what they cost."""
  rng = np.random.default_rng(seed)
  states = rng.integers(problem.num_states, size=(problem.num_episodes, problem.horizon + 1), dtype=np.int32)
  actions = rng.integers(problem.num_actions, size=(problem.num_episodes, problem.horizon), dtype=np.int32)
  return Data(states, actions, np.int32(problem.num_episodes))


def one_episode(agent: TabularAgent, state: Any, episode: Episode, key: jax.Array) -> tuple[Any, jax.Array]:
  """All that an agent computes for an episode: its policy, and what it learns. Returns state and policy."""
  key_policy, key_update = jax.random.split(key)
  policy = agent.policy(state, key_policy)
  return agent.update(state, episode, key_update), policy


@functools.partial(jax.jit, static_argnums=0)
def some_episodes(agent: TabularAgent, state: Any, episodes: Episode, keys: jax.Array) -> tuple[Any, jax.Array]:
  """One after the other, with a leading axis of episodes."""
  return jax.lax.scan(lambda state, given: one_episode(agent, state, *given), state, (episodes, keys))


@functools.partial(jax.jit, static_argnums=0)
def after(agent: TabularAgent, state: Any, data: Data, key: jax.Array) -> Any:
  """An agent's state after the first `data.num_episodes` episodes."""

  def add(i: jax.Array, state: Any) -> Any:
    return agent.update(state, Episode(data.states[i], data.actions[i]), jax.random.fold_in(key, i))

  return jax.lax.fori_loop(0, data.num_episodes, add, state)


def state_before(agent: TabularAgent, rewards: jax.Array, data: Data, k: int, key: jax.Array) -> Any:
  """An agent's state when `CHUNK` more will make k episodes, with room for k."""
  state, known = agent.init(key, rewards), np.int32(k - CHUNK)
  if isinstance(state, Refitted):
    # The data themselves: one update after the other would take LMC-LSVI a time of order k^2.
    return state._replace(data=Data(data.states[:k], data.actions[:k], known))
  return after(agent, state, data._replace(num_episodes=known), key)


def num_bytes(state: Any) -> int:
  """Bytes of all arrays of a tree, which may be shapes only."""
  return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


def measure(settings: TabularConfig, numbers: Sequence[int], num_rounds: int) -> list[Row]:
  """A row for each agent and each number of episodes k.

  Args:
    settings: S, A, H, beta, M and the seed.
    numbers: the values of k, each at least `CHUNK`.
    num_rounds: seconds are medians of so many measurements, of the last `CHUNK` episodes up to k together.
  """
  problem = settings.problem._replace(num_episodes=max(numbers))
  data, key = random_data(problem, settings.seed), jax.random.key(settings.seed)
  rewards = jax.random.uniform(key, problem.shape)
  # One agent for all k, so that it compiles anew only where its state is larger.
  agents = make_agents(problem, settings.index_dim)
  rows, runs = [], []
  for (name, agent), k in itertools.product(agents.items(), numbers):
    state = state_before(agent, rewards, data, k, key)
    last = Episode(data.states[k - CHUNK : k], data.actions[k - CHUNK : k])
    given = jax.device_put((state, last, jax.random.split(key, CHUNK)), jax.devices()[0])
    counted = operations(functools.partial(one_episode, agent), state, *jax.tree.map(lambda x: x[0], given[1:]))
    rows.append({'agent': name, 'episodes': k, 'operations': counted, 'bytes': num_bytes(state)})
    runs.append(functools.partial(some_episodes, agent, *given))
  seconds = _take_turns(runs, num_rounds) / CHUNK
  return [{**row, 'seconds': float(value)} for row, value in zip(rows, seconds, strict=True)]


def _take_turns(runs: Sequence[Callable[[], Any]], num_rounds: int) -> np.ndarray:
  """Median seconds of each function.

  They take turns, every other time backwards: a slow spell of the machine falls on all, and the median forgets it.
  """
  for run_one in runs:
    jax.block_until_ready(run_one())  # compiles
  seconds = np.zeros((num_rounds, len(runs)))
  for i in range(num_rounds):
    for j in range(len(runs))[:: -1 if i % 2 else 1]:
      start = time.perf_counter()
      jax.block_until_ready(runs[j]())
      seconds[i, j] = time.perf_counter() - start
  return np.median(seconds, axis=0)


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """k from 2^6 to 2^14, or 2^11."""
  device = jax.devices()[0]
  where = device.platform if device.platform == 'cpu' else device.device_kind
  print(f'seconds are measured on {where} ({platform.machine()}, cores: {num_cores()}), one run at a time', flush=True)
  return measure(settings, [2**i for i in range(6, 12 if reduced else 15)], NUM_ROUNDS)


def draw(rows: Sequence[Row]) -> Figure:
  """A panel for each measure, on logarithmic axes."""
  figure, axes = new_figure(len(MEASURES), width=4.2)
  for axis, (measure_name, label) in zip(axes.flat, MEASURES.items(), strict=True):
    for number, (name, mine) in enumerate(groups(rows, 'agent').items()):
      # Two agents keep the same and two nearly so: dashes let the one below be seen.
      look = {'color': COLOURS[number], 'lw': 1.8, 'ls': (0, (3, 2)) if name in DASHED else '-', 'marker': '.'}
      axis.plot(column(mine, 'episodes'), column(mine, measure_name), label=name, **look)
    axis.set_xscale('log', base=2)
    axis.set_yscale('log')
    axis.set(xlabel='episodes k', ylabel=label)
  figure.get_layout_engine().set(wspace=0.05)
  # Below the panels: curves cross all of them.
  figure.legend(*axes.flat[0].get_legend_handles_labels(), loc='outside lower center', ncols=5, frameon=False)
  return figure


def tell(rows: Sequence[Row]) -> str:
  """Each measure at the smallest and the largest k, and how it grows there."""
  first, last = (pick(row['episodes'] for row in rows) for pick in (min, max))
  lines = [f'{"":20s}{"":12s}{f"k = {first}":>12s}{f"k = {last}":>12s}{"slope":>8s}']
  for measure_name in MEASURES:
    for name, mine in groups(rows, 'agent').items():
      values, half = column(mine, measure_name), len(mine) // 2
      grows = round(slope(column(mine, 'episodes')[half:], values[half:]), 2) + 0.0  # no minus before a 0
      lines.append(f'{name:20s}{measure_name:12s}{values[0]:12.4g}{values[-1]:12.4g}{grows:8.2f}')
  lines.append('slope: of logarithms, over the larger half of k; 0 is constant, 1 linear')
  return '\n'.join(lines)


STUDY = Study('computation and memory of an episode against the number of episodes', COLUMNS, run, draw, tell)
