"""Training as one XLA program: environment, acting, replay and learning in a loop on the device.

Seeds are trained side by side and share nothing but counters. They are spread over the devices that are given, and on
each device run either one after the other (`map`, fastest on a CPU, whose cores are better used by a device each than
by batched small matrices) or as one batch (`vmap`, for GPU and TPU).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.evaluation import Episodes, make_evaluator
from hyperagent_jax.interaction import (
  ActingDraws,
  Carry,
  Interaction,
  LearningDraws,
  Losses,
  Stream,
  make_interaction,
  seed_key,
  stream_key,
)
from hyperagent_jax.replay import Replay, ReplayState
from hyperagent_jax.types import Agent, Array, Environment, LearnerState, PRNGKey, TimeStep, tree_index

# Random numbers drawn at a time, in 32-bit words; drawing for many steps at once vectorises, and 2^18 words (1 MiB)
# stay in cache.
_WORDS_PER_BLOCK = 2**18
_MAX_BLOCK = 64


class Statistics(NamedTuple):
  """What a seed has done; the second group counts from the start of the latest `run`."""

  num_interactions: Array  # [] int32 environment steps, resets not counted
  num_episodes: Array  # [] int32 finished episodes
  episode_return: Array  # [E] return of the episodes under way
  nonfinite_step: Array  # [] int32 first step with a loss that was not finite, -1 for none

  finished: Array  # [] int32 episodes finished
  return_sum: Array  # [] over these
  num_updates: Array  # [] int32
  loss_sum: Array  # []
  grad_norm_sum: Array  # []


class RunnerState(NamedTuple):
  """Everything a run needs to go on; leading axis S but for counters that all seeds share."""

  step: Array  # [] int32 number of the latest time step; a FIRST step counts
  key: PRNGKey  # [S]
  env_params: Any  # [S, ...]
  env_state: Any  # [S, E, ...]
  carry: Carry  # learner, replay, actor, latest action [S, ...]
  statistics: Statistics  # [S, ...]

  @property
  def learner(self) -> LearnerState:
    """The learners, [S, ...] but for num_updates."""
    return self.carry.learner


class Runner(NamedTuple):
  """The compiled programs; states that go in are donated, but for `evaluate` and `posterior`."""

  init: Callable[[Sequence[int], Any], RunnerState]  # seeds, env_params [S, ...]
  prefill: Callable[[RunnerState, int], RunnerState]  # acts at random for so many steps
  run: Callable[[RunnerState, int], RunnerState]  # acts and learns for so many steps
  evaluate: Callable[[RunnerState], Episodes]  # [S, number of episodes]
  place: Callable[[RunnerState], RunnerState]  # puts a restored state on its devices


def steps_for(num_interactions: int, episode_length: int | None) -> int:
  """The number of the time step by which each environment has done this many interactions.

  Every episode starts with a FIRST step, which is a time step but no interaction. Where episodes differ in length the
  two are taken to be equal.
  """
  if episode_length is None or num_interactions == 0:
    return num_interactions
  return num_interactions + (num_interactions - 1) // episode_length


def _axes() -> RunnerState:
  """Which arrays carry the axis of seeds: counters do not, so that periodic work is a branch and not a select."""
  learner = LearnerState(params=0, prior=0, target_params=0, opt_state=0, num_updates=None)
  replay = ReplayState(rows=0, starts=0, num_added=None, num_pushed=0, num_dropped=0)
  carry = Carry(learner, replay, actor=0, action=0)
  return RunnerState(step=None, key=0, env_params=0, env_state=0, carry=carry, statistics=0)


def _per_array(state: RunnerState, make: Callable[[bool], Any]) -> RunnerState:
  """A tree like `state` with `make(has an axis of seeds)` at every array."""

  def fill(axis: Any, tree: Any) -> Any:
    if isinstance(axis, tuple):
      return type(tree)(*(fill(a, t) for a, t in zip(axis, tree, strict=True)))
    return jax.tree.map(lambda _: make(axis is not None), tree)

  return fill(_axes(), state)


def select_seed(state: RunnerState, i: int) -> RunnerState:
  """The state of one seed, without the axis of seeds."""
  return jax.tree.map(lambda batched, x: x[i] if batched else x, _per_array(state, bool), state)


def _empty_statistics(num_envs: int) -> Statistics:
  count, total = lambda: jnp.zeros((), jnp.int32), lambda: jnp.zeros(())
  return Statistics(
    count(), count(), jnp.zeros((num_envs,)), -jnp.ones((), jnp.int32), count(), total(), count(), total(), total()
  )


def _count(s: Statistics, timestep: TimeStep) -> Statistics:
  """Adds a time step [E]."""
  episode_return = jnp.where(timestep.first(), 0.0, s.episode_return + timestep.reward)
  last = timestep.last()
  num_last = jnp.sum(last, dtype=jnp.int32)
  return s._replace(
    num_interactions=s.num_interactions + jnp.sum(~timestep.first(), dtype=jnp.int32),
    num_episodes=s.num_episodes + num_last,
    episode_return=episode_return,
    finished=s.finished + num_last,
    return_sum=s.return_sum + jnp.sum(jnp.where(last, episode_return, 0.0)),
  )


def _count_losses(s: Statistics, losses: Losses, step: Array) -> Statistics:
  """Adds the metrics of a step's updates."""
  first_bad = ~losses.finite & (s.nonfinite_step < 0)
  return s._replace(
    nonfinite_step=jnp.where(first_bad, step, s.nonfinite_step),
    num_updates=s.num_updates + losses.num_updates,
    loss_sum=s.loss_sum + losses.loss,
    grad_norm_sum=s.grad_norm_sum + losses.grad_norm,
  )


def make_train_loop(
  interaction: Interaction, environment: Environment, config: HyperAgentConfig, prefill: bool
) -> Callable[[RunnerState, Array], RunnerState]:
  """A pure function (state of one seed, number of steps) -> state; vmap it over seeds with `_axes`.

  Random numbers are drawn for a block of steps at once. A step's numbers depend on its number only, so blocks are free
  to start anywhere.
  """
  words = sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(_draw_shapes(interaction, config)))
  block_size = int(np.clip(_WORDS_PER_BLOCK // words, 1, _MAX_BLOCK))

  def one_step(state: RunnerState, learning: LearningDraws, acting: ActingDraws) -> RunnerState:
    env_state, timestep = jax.vmap(environment.step, in_axes=(None, 0, 0, 0))(
      state.env_params, state.env_state, state.carry.action, learning.environment
    )
    carry, losses = interaction.advance(state.carry, state.step, learning, timestep, acting, prefill)
    statistics = _count(_count_losses(state.statistics, losses, state.step), timestep)
    return RunnerState(state.step + 1, state.key, state.env_params, env_state, carry, statistics)

  def run(state: RunnerState, num_steps: Array) -> RunnerState:
    end = state.step + num_steps
    fresh = _empty_statistics(config.num_envs)
    kept = ('num_interactions', 'num_episodes', 'episode_return', 'nonfinite_step')
    state = state._replace(statistics=fresh._replace(**{k: getattr(state.statistics, k) for k in kept}))

    def block(state: RunnerState) -> RunnerState:
      learning, acting = interaction.draw_block(state.key, state.step, block_size)
      length = jnp.minimum(block_size, end - state.step)
      body = lambda i, s: one_step(s, tree_index(learning, i), tree_index(acting, i))
      return jax.lax.fori_loop(0, length, body, state)

    return jax.lax.while_loop(lambda s: s.step < end, block, state)

  return run


def _draw_shapes(interaction: Interaction, config: HyperAgentConfig) -> Any:
  key = seed_key(0, config.prng_impl)
  return jax.eval_shape(lambda: (interaction.draw_acting(key, 0), interaction.draw_learning(key, 0)))


def make_runner(
  agent: Agent,
  environment: Environment,
  replay: Replay,
  config: HyperAgentConfig,
  eval_environment: Environment | None = None,
  num_eval_episodes: int = 100,
  devices: Sequence[jax.Device] | None = None,
  seed_axis: str | None = None,
) -> Runner:
  """Compiled training and evaluation of S seeds.

  Args:
    agent: the agent.
    environment: a JAX environment; `num_envs` instances run per seed.
    replay: made for `config.num_envs` environments.
    config: reads num_envs, batch_size, update_ratio and prng_impl.
    eval_environment: for evaluation; the training environment by default.
    num_eval_episodes: episodes of one evaluation, each under an index of its own.
    devices: devices to spread seeds over, all local ones by default; of these as many are used as divide S.
    seed_axis: 'map' or 'vmap', how one device runs several seeds; by default 'map' on CPU and 'vmap' elsewhere.

  Raises:
    ValueError: on another seed_axis.
  """
  devices = list(jax.local_devices() if devices is None else devices)
  seed_axis = seed_axis or ('map' if devices[0].platform == 'cpu' else 'vmap')
  if seed_axis not in ('map', 'vmap'):
    raise ValueError(f'seed_axis={seed_axis!r}: must be map or vmap')
  interaction = make_interaction(agent, replay, environment.num_actions, config)
  evaluator = make_evaluator(agent, eval_environment or environment, num_eval_episodes)

  def init_seed(key: PRNGKey, env_params: Any) -> RunnerState:
    env_keys = jax.random.split(stream_key(key, 0, Stream.RESET), config.num_envs)
    env_state, timestep = jax.vmap(environment.reset, in_axes=(None, 0))(env_params, env_keys)
    carry = interaction.start(key, timestep)
    return RunnerState(jnp.zeros((), jnp.int32), key, env_params, env_state, carry, _empty_statistics(config.num_envs))

  def evaluate_seed(state: RunnerState) -> Episodes:
    key = stream_key(state.key, state.step, Stream.EVALUATE)
    return evaluator(state.learner, state.env_params, key)

  def mesh_for(num_seeds: int) -> Mesh:
    num = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return Mesh(np.asarray(devices[:num]), ('seeds',))

  def over_seeds(f: Callable[..., Any], out_like_state: bool) -> Callable[..., Any]:
    """Runs `f(state of one seed, *args)` for every seed: spread over devices, mapped or vmapped on each."""

    def on_device(state: RunnerState, *args: Any) -> Any:
      num_local = state.key.shape[0]
      if seed_axis == 'vmap':
        out_axes = _axes() if out_like_state else 0
        return jax.vmap(f, in_axes=(_axes(), *(None,) * len(args)), out_axes=out_axes)(state, *args)
      leaves, tree = jax.tree.flatten(state)
      batched = jax.tree.leaves(_per_array(state, bool))

      def one(mine: list[Array]) -> list[Array]:
        mine_left = iter(mine)
        full = [next(mine_left) if b else x for b, x in zip(batched, leaves, strict=True)]
        return f(jax.tree.unflatten(tree, full), *args)

      split = [x for b, x in zip(batched, leaves, strict=True) if b]
      if num_local == 1:  # a loop of one would copy replay into the loop and out of it
        out = jax.tree.map(lambda x: x[None], one([x[0] for x in split]))
      else:
        out = jax.lax.map(one, split)
      if not out_like_state:
        return out
      joined = [x if b else x[0] for b, x in zip(batched, jax.tree.leaves(out), strict=True)]
      return jax.tree.unflatten(tree, joined)

    def spread(state: RunnerState, *args: Any) -> Any:
      specs = _per_array(state, lambda batched: P('seeds') if batched else P())
      out_specs = specs if out_like_state else P('seeds')
      sharded = jax.shard_map(
        on_device,
        mesh=mesh_for(state.key.shape[0]),
        in_specs=(specs, *(P(),) * len(args)),
        out_specs=out_specs,
        check_vma=False,
      )
      return sharded(state, *args)

    return spread

  def place(state: RunnerState) -> RunnerState:
    mesh = mesh_for(state.key.shape[0])
    shardings = _per_array(state, lambda batched: NamedSharding(mesh, P('seeds') if batched else P()))
    return jax.device_put(state, shardings)

  compiled_init = jax.jit(init_seed)

  def init(seeds: Sequence[int], env_params: Any) -> RunnerState:
    keys = jnp.stack([seed_key(s, config.prng_impl) for s in seeds])
    # One seed at a time, so that a seed's state does not depend on its company.
    each = [compiled_init(keys[i], tree_index(env_params, i)) for i in range(len(seeds))]
    stack = lambda batched, *xs: jnp.stack(xs) if batched else xs[0]
    return place(jax.tree.map(stack, _per_array(each[0], bool), *each))

  loops = {p: make_train_loop(interaction, environment, config, prefill=p) for p in (True, False)}
  prefill = jax.jit(over_seeds(loops[True], out_like_state=True), donate_argnums=0)
  run = jax.jit(over_seeds(loops[False], out_like_state=True), donate_argnums=0)
  evaluate = jax.jit(over_seeds(evaluate_seed, out_like_state=False))
  as_count = lambda f: lambda state, num_steps: f(state, jnp.asarray(num_steps, jnp.int32))
  return Runner(init, as_count(prefill), as_count(run), evaluate, place)
