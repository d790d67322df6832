"""How good HyperAgent's posterior on DeepSea is: its mean against Q*, its spread against visits, its gradients.

    python -m experiments.deep_sea.studies.posterior_quality --output_dir=runs/posterior_quality
    python -m experiments.deep_sea.studies.posterior_quality --reduced    # a small version: seconds

Writes posterior_quality.csv (a line for every seed, moment, state and action), posterior_gradients.csv and
posterior_quality.png, and prints what was fitted.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from jax.flatten_util import ravel_pytree

from experiments.common import compilation
from experiments.common.cli import start_main
from experiments.common.devices import set_num_devices
from experiments.common.plotting import save_figure
from experiments.common.runs import folder_named
from experiments.common.settings import define_integer
from experiments.common.tables import format_table, write_table
from experiments.deep_sea.studies.posterior_laws import Table, binned, concatenate, fit_law, gradient_slope, where
from experiments.deep_sea.studies.posterior_quality_figure import draw
from hyperagent_jax import presets
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.config import ConfigError, HyperAgentConfig
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.networks import deep_sea_observations, make_network
from hyperagent_jax.replay import ReplayState, make_replay, stored_rows
from hyperagent_jax.runner import RunnerState, make_runner, select_seed, steps_for
from hyperagent_jax.types import Agent, Array, LearnerState, Transition

NUM_ACTIONS = 2
COLUMNS = ('seed', 'episodes', 'sigma', 'kind', 'row', 'column', 'right', 'visits', 'mean', 'std', 'q_star')
GRADIENT_COLUMNS = ('seed', 'episodes', 'sigma', 'num_indices', 'draw', 'cosine', 'relative_error')
# The kinds of a state and action: on the diagonal, one or two cells from it, farther away; or not taken yet, anywhere.
PATH, NEAR, FAR, NEVER = KINDS = ('path', 'near', 'far', 'never')
MOMENTS = (0, 25, 100, 300, 1000)  # episodes
GRADIENT_MOMENT = 2  # which of them
SIGMAS = (0.0, 0.1, 1.0)
NUM_INDICES, NUM_DRAWS = (1, 4, 20, 64, 256, 1024), 8
REDUCED = {'moments': (0, 50, 100), 'sigmas': (0.0, 1.0), 'num_indices': (1, 16, 256)}
MAX_ROWS = 22_000  # of the table: below 1 MB


def optimal_q(right_action: np.ndarray, discount: float) -> np.ndarray:
  """Q* [N, N, 2] of the deterministic DeepSea with this action map, by induction from the last row up."""
  size = len(right_action)
  column, value, q = np.arange(size), np.zeros(size), np.zeros((size, size, 2))
  for row in reversed(range(size)):
    reward = (column == size - 1) - deep_sea.UNSCALED_MOVE_COST / size
    right = reward + discount * value[np.minimum(column + 1, size - 1)]
    left = discount * value[np.maximum(column - 1, 0)]
    q[row] = np.where(right_action[row][:, None] == np.arange(2), right[:, None], left[:, None])
    value = q[row].max(axis=1)
  return q


def count_visits(replay: ReplayState, size: int) -> np.ndarray:
  """How often each action was taken in each state, [N, N, 2], by what is in one seed's replay."""
  stored = stored_rows(replay, lambda rows: (rows.observation, rows.action))
  observation, action = (x[:-1].ravel() for x in stored)  # the newest step has no next one yet
  inside = observation < size * size  # the step that ends an episode takes no action
  codes = 2 * observation[inside] + action[inside]
  return np.bincount(codes, minlength=2 * size * size).reshape(size, size, 2)


def kinds_of(row: np.ndarray, column: np.ndarray, visits: np.ndarray) -> np.ndarray:
  """The kind of each state and action."""
  away = row - column
  return np.select([visits == 0, away == 0, away <= 2], [NEVER, PATH, NEAR], FAR)


def compare(mean: np.ndarray, std: np.ndarray, visits: np.ndarray, right_action: np.ndarray, discount: float) -> Table:
  """One seed's posterior [cells, 2] beside Q* and visits [N, N, 2], a row for each reachable state and action."""
  row, column = np.tril_indices(len(right_action))
  each = lambda x: np.repeat(x, 2)
  table = {'row': each(row), 'column': each(column), 'visits': visits[row, column].ravel()}
  table['right'] = (right_action[row, column][:, None] == np.arange(2)).ravel().astype(int)
  table['q_star'] = optimal_q(right_action, discount)[row, column].ravel()
  table['kind'] = kinds_of(table['row'], table['column'], table['visits'])
  return {**table, 'mean': mean.ravel(), 'std': std.ravel()}


@functools.cache
def gradient_program(config: HyperAgentConfig, num_indices: int) -> Callable[..., Array]:
  """Compiled: learner, batch, keys [D] -> gradients [D, parameters] of the loss over N sampled update indices.

  N = 0 is the exact expectation. The target indices are the same for all keys: only the update indices differ.
  """
  # An optimizer that hands the gradient on as its state: differences of parameters would be rounded.
  keep = optax.GradientTransformation(lambda params: None, lambda grads, state, params: (grads, grads))
  config = dataclasses.replace(config, update_indices=str(num_indices or 'exact'))
  agent = make_hyperagent(make_network(config, NUM_ACTIONS), keep, config)

  def gradient(learner: LearnerState, batch: Transition, key: Array) -> Array:
    size = batch.a_tm1.shape[0]
    index_t = agent.draw_update(jax.random.key(0), size).index_t
    draws = agent.draw_update(key, size)._replace(index_t=index_t)
    return ravel_pytree(agent.update(learner._replace(opt_state=None), batch, draws)[0].opt_state)[0]

  return jax.jit(jax.vmap(gradient, in_axes=(None, None, 0)))


def compare_gradients(
  config: HyperAgentConfig,
  learner: LearnerState,
  batch: Transition,
  num_indices: Sequence[int] = NUM_INDICES,
  num_draws: int = NUM_DRAWS,
) -> Table:
  """Cosine similarity and relative error of sampled gradients with regard to the exact one."""
  keys, tables = jax.random.split(jax.random.key(1), num_draws), []
  exact = np.asarray(gradient_program(config, 0)(learner, batch, keys[:1])[0], np.float64)
  for num in num_indices:
    sampled = np.asarray(gradient_program(config, num)(learner, batch, keys), np.float64)
    error = np.linalg.norm(sampled - exact, axis=1) / np.linalg.norm(exact)
    cosine = sampled @ exact / np.linalg.norm(sampled, axis=1) / np.linalg.norm(exact)
    tables.append({'num_indices': num, 'draw': np.arange(num_draws), 'cosine': cosine, 'relative_error': error})
  return concatenate(tables)


def train(
  config: HyperAgentConfig, agent: Agent, num_seeds: int, moments: Sequence[int]
) -> Iterator[tuple[int, list[tuple[LearnerState, ReplayState, Transition | None]]]]:
  """Trains seeds 0, 1, ... and yields each moment (episodes, from 0) with every seed's learner, replay and a batch."""
  size, seeds = config.grid_size, range(num_seeds)
  capacity = steps_for(max(moments) * size, size) + 2
  replay = make_replay(capacity, 1, config.n_step, config.discount)
  runner = make_runner(agent, deep_sea.make_deep_sea(size), replay, config)
  maps = [deep_sea.make_params(size, seed) for seed in seeds]
  state = runner.init(seeds, jax.tree.map(lambda *x: jnp.stack(x), *maps))
  sample = jax.jit(replay.sample)

  def of_seed(host_state: RunnerState, i: int) -> tuple[LearnerState, ReplayState, Transition | None]:
    carry = select_seed(host_state, i).carry
    learner, rings = carry.learner, carry.replay
    bits = jax.random.bits(jax.random.key(i), (config.batch_size,))
    return learner, rings, sample(rings, bits) if rings.num_pushed else None

  for episodes in sorted(moments):
    if episodes and int(state.step) == 0:
      state = runner.prefill(state, steps_for(config.min_replay, size))
    if episodes:
      state = runner.run(state, max(0, steps_for(episodes * size, size) - int(state.step)))
    # To the host before seeds are taken apart: on devices that is a collective operation, which XLA gives up after 40
    # seconds of waiting for a device that is still training.
    host_state = jax.device_get(state)
    yield episodes, [of_seed(host_state, i) for i in seeds]


def measure(
  size: int, num_seeds: int, moments: Sequence[int], sigmas: Sequence[float] = SIGMAS, **gradient_settings: Any
) -> tuple[Table, Table]:
  """The tables of posteriors and of gradients; the moment before training, alike for all sigmas, is told once."""
  cells, errors = [], []
  for sigma in sigmas:
    config = dataclasses.replace(presets.deep_sea(size), sigma=sigma)
    agent = make_hyperagent(make_network(config, NUM_ACTIONS), make_optimizer(config), config)
    posterior = jax.jit(jax.vmap(agent.posterior, in_axes=(None, 0)))
    for episodes, states in train(config, agent, num_seeds, moments if sigma == sigmas[0] else moments[1:]):
      for seed, (learner, replay, batch) in enumerate(states):
        labels = {'seed': seed, 'episodes': episodes, 'sigma': sigma}
        mean, std = posterior(learner, deep_sea_observations(size)[:-1])
        right_action = np.asarray(deep_sea.make_params(size, seed).right_action)
        visits = count_visits(replay, size)
        table = compare(np.asarray(mean), np.asarray(std), visits, right_action, config.discount)
        cells.append({**labels, **table})
        if episodes == moments[GRADIENT_MOMENT]:
          assert batch is not None, 'there are transitions at this moment'
          errors.append({**labels, **compare_gradients(config, learner, batch, **gradient_settings)})
    print(f'sigma {sigma:g}: trained {num_seeds} seeds for {max(moments):,} episodes', flush=True)
  return concatenate(cells), concatenate(errors)


def summary(cells: Table, errors: Table) -> str:
  """What came out: the mean's errors and the law at every moment, and a line on gradients for each sigma."""
  lines, text = [], ''
  for sigma in np.unique(cells['sigma']):
    for episodes in np.unique(where(cells, sigma=sigma)['episodes']):
      now = where(cells, sigma=sigma, episodes=episodes)
      groups = [where(now, kind=kind) for kind in KINDS]
      off = [f'{np.abs(g["mean"] - g["q_star"]).mean():.3f}' if len(g['mean']) else '-' for g in groups]
      law = fit_law(*binned(now['visits'], now['std']))
      lines.append((f'{sigma:g}', f'{episodes:,}', *off, *(f'{x:.2g}' for x in law)))
    one = where(errors, sigma=sigma)
    at_most = where(one, num_indices=errors['num_indices'].max())
    text += (
      f'\nsigma {sigma:g}: gradient error falls as N^{gradient_slope(one):.3f}; at N = {errors["num_indices"].max()} '
    )
    text += f'it is {at_most["relative_error"].mean():.3f}, with cosine {at_most["cosine"].mean():.4f}'
  head = 'Mean |posterior mean - Q*| by kind of state and action; law std = c / sqrt(n + beta), slope over n >= 1:\n'
  return head + format_table(('sigma', 'episodes', *KINDS, 'c', 'beta', 'R^2', 'slope'), lines) + text


def write_sample(path: pathlib.Path, table: Table, columns: Sequence[str]) -> None:
  """Writes a table, of which as many rows as are allowed, drawn at random, in order."""
  num = len(table[columns[0]])
  rows = np.sort(np.random.default_rng(0).permutation(num)[:MAX_ROWS])
  as_text = lambda x: f'{x:.4g}' if isinstance(x, np.floating) else str(x)
  write_table(path, columns, ([as_text(table[name][i]) for name in columns] for i in rows))


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of this binary."""
  folder = 'runs/posterior_quality'
  flags.DEFINE_string('output_dir', folder, 'Folder of tables and figure.', flag_values=flag_values)
  define_integer('size', 20, 'Side N of the grid.', flag_values)
  define_integer('num_seeds', 4, 'Seeds trained side by side.', flag_values)
  flags.DEFINE_bool('reduced', False, 'At most size 8 and two seeds, fewer episodes.', flag_values=flag_values)
  compilation.define_flag(flag_values)


def run(folder: pathlib.Path, size: int, num_seeds: int, **settings: Any) -> str:
  """Measures, writes the files and gives the summary."""
  folder.mkdir(parents=True, exist_ok=True)  # before training, so that a bad folder is known before
  cells, errors = measure(size, num_seeds, **settings)
  write_sample(folder / 'posterior_quality.csv', cells, COLUMNS)
  write_sample(folder / 'posterior_gradients.csv', errors, GRADIENT_COLUMNS)
  save_figure(str(folder / 'posterior_quality.png'), draw(cells, errors))
  return summary(cells, errors)


def main() -> None:
  """Measures at all moments with every sigma."""
  values = flags.FLAGS
  size, num_seeds = values.size, values.num_seeds
  if not 6 <= size <= 200:  # below, the first moment would come before the end of acting at random
    raise ConfigError(f'--size={size}: must be from 6 to 200')
  if not 1 <= num_seeds <= 100:
    raise ConfigError(f'--num_seeds={num_seeds}: must be from 1 to 100')
  folder = folder_named(values.output_dir)
  if values.reduced:
    size, num_seeds = min(size, 8), min(num_seeds, 2)
  compilation.keep_compiled(values.compilation_cache_dir)
  set_num_devices(0, num_seeds)
  settings = REDUCED if values.reduced else {'moments': MOMENTS}
  print(run(folder, size, num_seeds, **settings))


if __name__ == '__main__':
  start_main(main, 'posterior_quality', define_flags)
