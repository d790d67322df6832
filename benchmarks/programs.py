"""Whole programs that the benchmarks time: HyperAgent on DeepSea under either driver, and on Atari."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from bsuite.environments.deep_sea import DeepSea

import hyperagent_jax as ha
from benchmarks.timing import BLOCK
from hyperagent_jax.envs import atari
from hyperagent_jax.interaction import ActingDraws, LearningDraws, make_interaction
from hyperagent_jax.networks import frame_layout
from hyperagent_jax.seeds import default_seed_axis
from hyperagent_jax.types import batched, tree_index

CAPACITY = 250_000  # time steps that replay holds, per seed
CHUNK = 1_000  # interactions per seed between evaluations, as in experiments/deep_sea


class Setup(NamedTuple):
  """Everything a program is made of, and its state after prefilling."""

  config: ha.HyperAgentConfig
  environment: ha.Environment
  network: ha.Network
  agent: ha.Agent
  replay: Any
  runner: ha.Runner
  num_seeds: int
  num_interactions: int  # per seed, that replay was filled with
  state: ha.RunnerState


class Chunk(NamedTuple):
  """A timed piece of training."""

  seconds: float
  steps: int  # time steps of each seed, with those that start an episode
  interactions: int  # environment steps of all seeds, without them

  @property
  def speed(self) -> float:
    """Environment steps per second."""
    return self.interactions / self.seconds

  @property
  def step_time(self) -> float:
    """Microseconds per time step."""
    return 1e6 * self.seconds / self.steps


def make_setup(
  config: ha.HyperAgentConfig,
  num_seeds: int = 1,
  capacity: int = CAPACITY,
  fill: int | None = None,
  network: ha.Network | None = None,
  optimizer: optax.GradientTransformation | None = None,
  replay: Any = None,
  devices: Sequence[jax.Device] | None = None,
  seed_axis: str | None = None,
  like: Setup | None = None,
) -> Setup:
  """Builds a program as `experiments/deep_sea` does, and prefills replay with `fill` random interactions.

  Args:
    config: the agent's; its grid_size is DeepSea's size.
    num_seeds: seeds trained side by side.
    capacity: of replay.
    fill: interactions; `config.min_replay` by default.
    network: another than the library's.
    optimizer: another than the library's.
    replay: another than the library's.
    devices: see `make_runner`.
    seed_axis: see `make_runner`.
    like: a setup whose arrays have the same shapes; its state is taken over, which saves compiling and prefilling.
  """
  size, fill = config.grid_size, fill or config.min_replay
  environment = ha.make_deep_sea(size)
  network = network or ha.make_network(config, environment.num_actions)
  agent = ha.make_hyperagent(network, optimizer or ha.make_optimizer(config), config)
  replay = replay or ha.make_replay(capacity, config.num_envs, config.n_step, config.discount)
  runner = ha.make_runner(agent, environment, replay, config, devices=devices, seed_axis=seed_axis)
  if like is not None:
    fill, state = like.num_interactions, runner.place(jax.tree.map(jnp.copy, like.state))
    return Setup(config, environment, network, agent, replay, runner, num_seeds, fill, state)
  maps = [ha.envs.deep_sea.make_params(size, seed) for seed in range(num_seeds)]
  state = runner.init(list(range(num_seeds)), jax.tree.map(lambda *x: jnp.stack(x), *maps))
  state = runner.prefill(state, ha.steps_for(fill, size))
  return Setup(config, environment, network, agent, replay, runner, num_seeds, fill, state)


def make_atari_setup(game: str, config: ha.HyperAgentConfig, num_seeds: int = 1, fill: int = 2_000) -> Setup:
  """Builds a program as `experiments/atari` does on one device, and prefills replay with `fill` random steps."""
  devices = jax.local_devices()[:1]
  groups = num_seeds if default_seed_axis(devices) == 'map' else 1
  games = atari.make_atari(game, atari.AtariConfig(), num_seeds, config.num_envs, 1, groups)
  network = ha.make_network(config, games.environment.num_actions)
  agent = ha.make_hyperagent(network, ha.make_optimizer(config), config)
  replay = ha.make_replay(
    config.replay_capacity,
    config.num_envs,
    config.n_step,
    config.discount,
    config.frame_stack,
    frame_layout(config),
  )
  runner = ha.make_runner(agent, games.environment, replay, config, games.eval_environment, 1, devices)
  state = runner.prefill(runner.init(range(num_seeds), games.params), fill)
  return Setup(config, games.environment, network, agent, replay, runner, num_seeds, fill, state)


def copy_state(setup: Setup) -> ha.RunnerState:
  """A copy of a setup's state, to be donated."""
  return setup.runner.place(jax.tree.map(jnp.copy, setup.state), setup.state.env_params)


def training(setup: Setup, chunk: int = CHUNK) -> Callable[[], Chunk]:
  """Trains from the setup's state, for `chunk` more interactions per seed at every call."""
  length = setup.environment.episode_length
  state, done = copy_state(setup), setup.num_interactions

  def run() -> Chunk:
    nonlocal state, done
    per_env = lambda interactions: ha.steps_for(interactions // setup.config.num_envs, length)
    steps = per_env(done + chunk) - per_env(done)
    jax.block_until_ready(state)
    start = time.perf_counter()
    state = jax.block_until_ready(setup.runner.run(state, steps))
    seconds = time.perf_counter() - start
    done += chunk
    return Chunk(seconds, steps, chunk * setup.num_seeds)

  return run


def host_training(config: ha.HyperAgentConfig, chunk: int = CHUNK, fill: int = 128) -> Callable[[], Chunk]:
  """The same under the host driver, with bsuite's own DeepSea."""
  config = dataclasses.replace(config, min_replay=fill)
  replay = ha.make_replay(CAPACITY, 1, config.n_step, config.discount)
  network = ha.make_network(config, num_actions=2)
  agent = ha.HostAgent(ha.make_hyperagent(network, ha.make_optimizer(config), config), replay, 2, config, seed=0)
  loop = ha.run_loop(agent, ha.IntegerObservations(DeepSea(config.grid_size, mapping_seed=0)))
  while agent.num_interactions < config.min_replay:
    next(loop)

  def run() -> Chunk:
    end, steps = agent.num_interactions + chunk, 0
    start = time.perf_counter()
    while agent.num_interactions < end:
      next(loop)
      steps += 1
    jax.block_until_ready(agent.learner)
    return Chunk(time.perf_counter() - start, steps, chunk)

  return run


class Inputs(NamedTuple):
  """Stacks of real inputs for the parts of a step of one seed."""

  state: ha.RunnerState  # of the seed, after prefilling
  timesteps: ha.TimeStep  # [N + 1, E] one episode, or the first BLOCK steps of one
  learning: LearningDraws  # [BLOCK, ...]
  acting: ActingDraws  # [BLOCK, ...]
  batches: ha.Transition  # [BLOCK, B]
  updates: Any  # [BLOCK, ...] random numbers of an update


def make_inputs(setup: Setup) -> Inputs:
  """Draws the inputs from a setup's first seed."""
  interaction = make_interaction(setup.agent, setup.replay, setup.environment.num_actions, setup.config)

  @jax.jit
  def stacks(state: ha.RunnerState) -> Any:
    learning, acting = interaction.draw_block(state.key, jnp.zeros((), jnp.int32), BLOCK)
    batches = jax.vmap(lambda bits: setup.replay.sample(state.carry.replay, bits[0]))(learning.replay)
    updates = tree_index(learning.update, (slice(None), 0))
    return episode(setup, state.env_params), learning, acting, batches, updates

  state = jax.device_put(jax.tree.map(jnp.copy, ha.select_seed(setup.state, 0)), jax.devices()[0])
  return Inputs(state, *stacks(state))


def episode(setup: Setup, env_params: Any) -> ha.TimeStep:
  """The time steps [N + 1, E] of an episode under random actions, or its first BLOCK where lengths differ."""
  num_envs = setup.config.num_envs
  environment = batched(setup.environment, num_envs)
  keys = jax.random.split(jax.random.key(0), num_envs)
  length = environment.episode_length or BLOCK
  actions = jax.random.randint(keys[0], (length, num_envs), 0, environment.num_actions)
  env_state, first = environment.reset(env_params, keys)
  step = lambda state, action: environment.step(env_params, state, action, keys)
  _, others = jax.lax.scan(step, env_state, actions)
  return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)
