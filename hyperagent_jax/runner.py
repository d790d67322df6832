"""Training as one XLA program: environment, acting, replay and learning in a loop on the device.

Seeds are trained side by side and share nothing but counters; `seeds.py` says how they are spread over devices.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.checks import check_stack
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.evaluation import MAX_EVAL_STEPS, Episodes, make_evaluator, make_parts
from hyperagent_jax.interaction import (
  CARRY_AXES,
  MAX_COUNT,
  ActingDraws,
  Carry,
  Interaction,
  LearningDraws,
  Stream,
  UpdateSchedule,
  make_interaction,
  seed_key,
  stream_key,
)
from hyperagent_jax.replay import REPLAY_AXES, Replay, count_rows
from hyperagent_jax.seeds import SEED_AXES, default_seed_axis, mesh_for, over_seeds, per_array, shardings
from hyperagent_jax.statistics import Statistics, count_anew, count_losses, count_step, empty_statistics
from hyperagent_jax.types import (
  LEARNER_AXES,
  Agent,
  Array,
  Environment,
  LearnerState,
  Params,
  PRNGKey,
  TimeStep,
  batched,
  tree_index,
)

# Random numbers drawn at a time, in 32-bit words; drawing for many steps at once vectorises, and 2^18 words (1 MiB)
# stay in cache.
_WORDS_PER_BLOCK = 2**18
_MAX_BLOCK = 64
# Steps of an evaluation before the first look around, and the seconds between looks to which they are adapted.
_FIRST_LOOK, _LOOK_SECONDS = 64, 1.0


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


class InitRunner(Protocol):
  """Begins a run."""

  def __call__(self, seeds: Sequence[int], env_params: Any, /) -> RunnerState:
    """Returns the state of these seeds after their first time step; `env_params` are [S, ...]."""


class Run(Protocol):
  """Acts and learns."""

  def __call__(
    self,
    state: RunnerState,
    num_steps: int,
    /,
    active: Sequence[bool] | np.ndarray | None = None,
    fresh: bool = True,
  ) -> RunnerState:
    """Returns the state so many time steps later; the one given is donated.

    ValueError if replay holds no whole transition yet, or a counter would outgrow an int32: see `MAX_COUNT`.

    The second group of `Statistics` counts from here on if `fresh`, else from where it did.

    Seeds whose entry of `active` [S] is False rest, as far as that saves time: where seeds are mapped they stay as they
    are, where they are vmapped they go on with the others. A seed that has rested rests for good: the rows that it has
    missed are in no replay.
    """


class Prefill(Protocol):
  """Acts at random and does not learn."""

  def __call__(self, state: RunnerState, num_steps: int, /) -> RunnerState:
    """Returns the state so many time steps later; the one given is donated.

    ValueError if a counter would outgrow an int32: see `MAX_COUNT`.
    """


class Evaluate(Protocol):
  """Plays whole episodes under frozen parameters."""

  def __call__(
    self,
    state: RunnerState,
    /,
    repeat: int = 0,
    params: Params | None = None,
    between: Callable[[], None] | None = None,
  ) -> Episodes:
    """Returns the episodes [S, number of episodes] of the state's learners, or of these parameters [S, ...] instead.

    Another `repeat` plays other episodes of the same state. `between`, if given, is called every second or so, and may
    raise something to give up; the episodes are the same.
    """


class Place(Protocol):
  """Goes on from a restored state."""

  def __call__(self, state: RunnerState, env_params: Any = None, /) -> RunnerState:
    """Returns the state on its devices.

    Environments that could not be saved start new episodes, for which `env_params` [S, ...] are needed.
    """


class Runner(NamedTuple):
  """The compiled programs; states that go in are donated, but for `evaluate`."""

  init: InitRunner
  shape: InitRunner  # the same, shapes only but for the keys
  prefill: Prefill
  run: Run
  evaluate: Evaluate
  place: Place


def steps_for(num_interactions: int, episode_length: int | None) -> int:
  """The number of the time step by which each environment has done this many interactions.

  Every episode starts with a FIRST step, which is a time step but no interaction. Where episodes differ in length the
  two are taken to be equal.
  """
  if episode_length is None or num_interactions == 0:
    return num_interactions
  return num_interactions + (num_interactions - 1) // episode_length


# Which arrays carry the axis of seeds, as in `types.LEARNER_AXES`.
STATE_AXES: Any = RunnerState(*cast(tuple[Any, ...], (None, 0, 0, 0, CARRY_AXES, 0)))


def select_seed(state: RunnerState, i: int) -> RunnerState:
  """The state of one seed, without the axis of seeds."""
  return jax.tree.map(lambda seeded, x: x[i] if seeded else x, per_array(STATE_AXES, state, bool), state)


def make_train_loop(
  interaction: Interaction, environment: Environment, config: HyperAgentConfig, prefill: bool
) -> Callable[..., RunnerState]:
  """A pure function (state of one seed, number of steps, fresh=True) -> state that runs all `num_envs` environments.

  Random numbers are drawn for a block of steps at once. A step's numbers depend on its number only, so blocks are free
  to start anywhere.
  """
  environment = batched(environment, config.num_envs)
  words = sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(_draw_shapes(interaction, config)))
  block_size = int(np.clip(_WORDS_PER_BLOCK // words, 1, _MAX_BLOCK))

  def one_step(state: RunnerState, learning: LearningDraws, acting: ActingDraws) -> RunnerState:
    env_state, timestep = environment.step(state.env_params, state.env_state, state.carry.action, learning.environment)
    carry, losses = interaction.advance(state.carry, state.step, learning, timestep, acting, prefill)
    statistics = count_step(count_losses(state.statistics, losses, state.step), timestep)
    return RunnerState(state.step + 1, state.key, state.env_params, env_state, carry, statistics)

  def run(state: RunnerState, num_steps: Array, fresh: Array | bool = True) -> RunnerState:
    end = state.step + num_steps
    state = state._replace(statistics=count_anew(state.statistics, fresh))

    def block(state: RunnerState) -> RunnerState:
      learning, acting = interaction.draw_block(state.key, state.step, block_size)
      length = jnp.minimum(block_size, end - state.step)
      body = lambda i, s: one_step(s, tree_index(learning, i), tree_index(acting, i))
      return jax.lax.fori_loop(0, length, body, state)

    return jax.lax.while_loop(lambda s: s.step < end, block, state)

  return run


def make_resting_loop(
  train: Callable[..., RunnerState], schedule: UpdateSchedule
) -> Callable[[RunnerState, Array, Array | bool, Array], RunnerState]:
  """A pure function (state of one seed, number of steps, fresh, active []) -> state, in which a seed may rest.

  It then stays as it is, but for the counters that all seeds share: these go on.
  """

  def rest(state: RunnerState, num_steps: Array, fresh: Array | bool) -> RunnerState:
    del fresh
    learner, replay = state.carry.learner, state.carry.replay
    missed = schedule.num_updates_before(state.step + num_steps) - schedule.num_updates_before(state.step)
    learner = learner._replace(num_updates=learner.num_updates + missed)
    replay = count_rows(replay, num_steps)
    return state._replace(step=state.step + num_steps, carry=state.carry._replace(learner=learner, replay=replay))

  return lambda state, num_steps, fresh, active: jax.lax.cond(active, train, rest, state, num_steps, fresh)


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
  max_eval_steps: int = MAX_EVAL_STEPS,
  devices: Sequence[jax.Device] | None = None,
  seed_axis: str | None = None,
) -> Runner:
  """Compiled training and evaluation of S seeds.

  Args:
    agent: the agent.
    environment: a JAX environment, of which `num_envs` instances run per seed, or one made for `num_envs` instances.
    replay: made for `config.num_envs` environments.
    config: reads num_envs, batch_size, update_ratio, max_abs_reward and prng_impl.
    eval_environment: for evaluation; the training environment by default.
    num_eval_episodes: episodes of one evaluation, each under an index of its own.
    max_eval_steps: steps after which an evaluation cuts the episodes that have not ended.
    devices: devices to spread seeds over, all local ones by default; of these as many are used as divide S.
    seed_axis: 'map' or 'vmap', how one device runs several seeds; by default 'map' on CPU and 'vmap' elsewhere.

  Raises:
    ValueError: on another seed_axis, or an environment made for another number of instances; and from `init`, if its
      observations are not the stacks of frames that replay makes of them, or a seed is not in [0, 2^32).
  """
  devices = list(jax.local_devices() if devices is None else devices)
  seed_axis = seed_axis or default_seed_axis(devices)
  if seed_axis not in SEED_AXES:
    raise ValueError(f'seed_axis={seed_axis!r}: must be {" or ".join(SEED_AXES)}')
  evaluator = make_evaluator(agent, eval_environment or environment, num_eval_episodes, max_eval_steps)
  parts = make_parts(agent, eval_environment or environment, num_eval_episodes, max_eval_steps)
  interaction = make_interaction(agent, replay, environment.num_actions, config)

  def compiled(f: Callable[..., Any], in_axes: Any, out_axes: Any, donate: tuple[int, ...] = ()) -> Callable[..., Any]:
    return jax.jit(over_seeds(f, in_axes, out_axes, devices, seed_axis), donate_argnums=donate)

  environment = batched(environment, config.num_envs)

  def reset(key: PRNGKey, step: Array, env_params: Any) -> tuple[Any, TimeStep]:
    env_keys = jax.random.split(stream_key(key, step, Stream.RESET), config.num_envs)
    return environment.reset(env_params, env_keys)

  def start(key: PRNGKey, env_params: Any, env_state: Any, timestep: TimeStep) -> RunnerState:
    carry = interaction.start(key, timestep)
    return RunnerState(jnp.zeros((), jnp.int32), key, env_params, env_state, carry, empty_statistics(config.num_envs))

  def restart(state: RunnerState, env_params: Any, env_state: Any, timestep: TimeStep) -> RunnerState:
    """Goes on with new episodes: their FIRST steps end those under way, as truncated."""
    learning, acting = (
      interaction.draw_learning(state.key, state.step),
      interaction.draw_acting(state.key, state.step + 1),
    )
    carry, losses = interaction.advance(state.carry, state.step, learning, timestep, acting, prefill=False)
    statistics = count_step(count_losses(state.statistics, losses, state.step), timestep)
    return RunnerState(state.step + 1, state.key, env_params, env_state, carry, statistics)

  compiled_reset = compiled(reset, (0, None, 0), 0)
  compiled_start = compiled(start, (0, 0, 0, 0), STATE_AXES)
  compiled_restart = compiled(restart, (STATE_AXES, 0, 0, 0), STATE_AXES, donate=(0,))
  compiled_evaluate = compiled(evaluator, (LEARNER_AXES, 0, 0), 0)
  compiled_play = compiled(parts.start, (LEARNER_AXES, 0, 0), 0)
  compiled_play_on = compiled(parts.go_on, (LEARNER_AXES, 0, 0, None), 0, donate=(2,))

  def first_steps(keys: PRNGKey, env_params: Any) -> tuple[Any, TimeStep]:
    return compiled_reset(keys, jnp.zeros((), jnp.int32), env_params)

  def init(seeds: Sequence[int], env_params: Any) -> RunnerState:
    keys = jnp.stack([seed_key(s, config.prng_impl) for s in seeds])
    env_state, timestep = first_steps(keys, env_params)
    if replay.frame_stack > 1:
      shown = timestep.observation
      is_array = isinstance(shown, jax.Array)
      for stack in np.asarray(shown).reshape(-1, *shown.shape[2:]) if is_array else (shown,):
        check_stack(stack, replay.frame_stack, replay.frame_padding, before=None)
    return compiled_start(keys, env_params, env_state, timestep)

  def shape(seeds: Sequence[int], env_params: Any) -> RunnerState:
    keys = jnp.stack([seed_key(s, config.prng_impl) for s in seeds])  # a key's shape does not tell its generator
    shapes = jax.eval_shape(lambda: compiled_start(keys, env_params, *first_steps(keys, env_params)))
    return shapes._replace(key=keys)

  def evaluate(
    state: RunnerState,
    repeat: int = 0,
    params: Params | None = None,
    between: Callable[[], None] | None = None,
  ) -> Episodes:
    keys = jax.vmap(lambda key: stream_key(key, state.step, Stream.EVALUATE))(state.key)
    if repeat:
      keys = jax.vmap(lambda key: jax.random.fold_in(key, repeat))(keys)
    learner = state.learner if params is None else state.learner._replace(params=params)
    if between is None:
      return compiled_evaluate(learner, state.env_params, keys)
    playing, steps = compiled_play(learner, state.env_params, keys), _FIRST_LOOK
    while not np.all(parts.is_over(playing)):
      start = time.monotonic()
      playing = jax.block_until_ready(compiled_play_on(learner, state.env_params, playing, jnp.int32(steps)))
      between()
      steps = steps * 2 if time.monotonic() - start < _LOOK_SECONDS else max(1, steps // 2)
    return playing.episodes

  def place(state: RunnerState, env_params: Any = None) -> RunnerState:
    state = jax.device_put(state, shardings(STATE_AXES, state, mesh_for(state.key.shape[0], devices)))
    if environment.resumable:
      return state
    # Numbered, so that every resumption plays other games.
    return compiled_restart(state, env_params, *compiled_reset(state.key, state.step + 1, env_params))

  prefill_loop, train_loop = (make_train_loop(interaction, environment, config, prefill=p) for p in (True, False))
  compiled_prefill, compiled_run = (
    compiled(loop, (STATE_AXES, None, None), STATE_AXES, donate=(0,)) for loop in (prefill_loop, train_loop)
  )
  compiled_resting = compiled(
    make_resting_loop(train_loop, interaction.schedule), (STATE_AXES, None, None, 0), STATE_AXES, donate=(0,)
  )

  can_sample = jax.jit(jax.vmap(replay.can_sample, in_axes=(REPLAY_AXES,)))

  def check_count(state: RunnerState, num_steps: int) -> None:
    """Refuses what would make a counter overflow: interactions and updates count most."""
    most = MAX_COUNT // max(config.num_envs, interaction.schedule.num_updates) - int(state.step)
    if not 0 <= num_steps <= most:
      raise ValueError(
        f'num_steps={num_steps}: must be in [0, {max(0, most)}] at time step {int(state.step)} of {config.num_envs} '
        f'environments with {config.update_ratio:g} updates a step, as far as counters go'
      )

  def prefill(state: RunnerState, num_steps: int) -> RunnerState:
    check_count(state, num_steps)
    return compiled_prefill(state, jnp.asarray(num_steps, jnp.int32), jnp.asarray(True))

  def run(
    state: RunnerState,
    num_steps: int,
    active: Sequence[bool] | np.ndarray | None = None,
    fresh: bool = True,
  ) -> RunnerState:
    check_count(state, num_steps)
    if not np.all(can_sample(state.carry.replay)):
      least = config.n_step + 1
      raise ValueError(f'replay holds no whole transition to learn from: prefill first, with at least {least} steps')
    count = jnp.asarray(num_steps, jnp.int32)
    # A branch is a select under vmap: resting would save nothing.
    if active is None or seed_axis == 'vmap':
      return compiled_run(state, count, jnp.asarray(fresh))
    return compiled_resting(state, count, jnp.asarray(fresh), jnp.asarray(active, bool))

  return Runner(init, shape, prefill, run, evaluate, place)
