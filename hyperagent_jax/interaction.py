"""What happens at one time step, whichever driver steps the environment: act, remember, learn.

Both drivers call `Interaction.advance`, so both do the same computation with the same random numbers, which depend
on the seed, the number of the step and the purpose only: never on the driver, the length of a chunk or a resumption.
"""

import enum
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.replay import REPLAY_AXES, Replay, ReplayState
from hyperagent_jax.types import LEARNER_AXES, Agent, Array, LearnerState, PRNGKey, TimeStep, check_32_bits, tree_index

MAX_COUNT = 2**31 - 1  # counters are int32
LAST_SEED = 2**32 - 1  # that a key can tell apart from the others


class Stream(enum.IntEnum):
  """Purposes of random numbers; a key is fold_in(fold_in(seed_key, step), stream)."""

  ACT = 0
  EXPLORE = 1
  ENVIRONMENT = 2
  REPLAY = 3
  UPDATE = 4
  EVALUATE = 5
  INIT = 6
  RESET = 7


class ActingDraws(NamedTuple):
  """The random numbers with which E environments' time step is acted in."""

  act: Any  # [E, ...]
  explore: Array  # [E] uniformly random actions


class LearningDraws(NamedTuple):
  """The random numbers of the updates after a time step, and of the environments' next step."""

  replay: Array  # [U, B] uint32
  update: Any  # [U, ...]
  environment: PRNGKey  # [E]


class Losses(NamedTuple):
  """Metrics of the updates of one time step."""

  num_updates: Array  # [] int32
  loss: Array  # [] summed over the updates
  grad_norm: Array  # [] summed over the updates
  finite: Array  # [] bool: whether every loss and gradient was finite


class Carry(NamedTuple):
  """What a time step hands to the next one."""

  learner: LearnerState
  replay: ReplayState
  actor: Any  # [E, ...]
  action: Array  # [E] chosen in the latest time step, which is already in replay


# Which arrays carry the axis of seeds, as in `types.LEARNER_AXES`.
CARRY_AXES: Any = Carry(LEARNER_AXES, REPLAY_AXES, 0, cast(Array, 0))


class UpdateSchedule(NamedTuple):
  """When an agent learns: `num_updates` updates after every time step whose number is a multiple of `period`."""

  period: int
  num_updates: int

  def is_due(self, step: Array | int) -> Array | bool:
    """Whether updates follow time step number `step`."""
    return step % self.period == 0

  def num_updates_before(self, step: Array | int) -> Array | int:
    """Updates that follow the time steps 0 ... step - 1."""
    return -(-step // self.period) * self.num_updates


class Start(Protocol):
  """Begins a run."""

  def __call__(self, key: PRNGKey, timestep: TimeStep, /) -> Carry:
    """Returns fresh state in which the first time step [E] has been acted in and remembered."""


class DrawLearning(Protocol):
  """Draws for the updates after a time step."""

  def __call__(self, key: PRNGKey, step: Array | int, /) -> LearningDraws:
    """Returns the draws of time step number `step` under a seed's key."""


class DrawActing(Protocol):
  """Draws for acting in a time step."""

  def __call__(self, key: PRNGKey, step: Array | int, /) -> ActingDraws:
    """Returns the draws of time step number `step` under a seed's key."""


class DrawBlock(Protocol):
  """Draws for many time steps at once, the same numbers."""

  def __call__(self, key: PRNGKey, step: Array, num_steps: int, /) -> tuple[LearningDraws, ActingDraws]:
    """Returns the learning draws of `num_steps` steps from `step` on, and the acting draws of those after them."""


class Advance(Protocol):
  """Goes on by one time step."""

  def __call__(
    self,
    carry: Carry,
    step: Array | int,
    learning: LearningDraws,
    timestep: TimeStep,
    acting: ActingDraws,
    /,
    prefill: bool,
  ) -> tuple[Carry, Losses]:
    """Returns the state after learning from what time step number `step` left, and acting in the next one.

    `learning` are that step's draws, `timestep` [E] and `acting` the next one's.
    """


class Interaction(NamedTuple):
  """The pure functions that a driver calls: `start` with the first time step, `advance` with every other."""

  start: Start
  draw_learning: DrawLearning
  draw_acting: DrawActing
  draw_block: DrawBlock
  advance: Advance
  schedule: UpdateSchedule


def seed_key(seed: int | Array, prng_impl: str) -> PRNGKey:
  """The key from which all randomness of a seed derives.

  Raises:
    ValueError: if a number is not in [0, 2^32 - 1]: a key would be another seed's.
  """
  if not isinstance(seed, jax.Array):
    if not 0 <= seed <= LAST_SEED:
      raise ValueError(f'seed={seed}: must be in [0, {LAST_SEED}]')
    seed = jnp.uint32(seed)
  return jax.random.key(seed, impl=prng_impl)


def stream_key(key: PRNGKey, step: Array | int, stream: Stream) -> PRNGKey:
  """The key of one purpose at one time step of one seed."""
  return jax.random.fold_in(jax.random.fold_in(key, step), stream)


def update_schedule(config: HyperAgentConfig) -> UpdateSchedule:
  """When an agent of this configuration learns (update_ratio times num_envs updates a step, or one in so many)."""
  return UpdateSchedule(config.steps_per_update, max(1, config.updates_per_step))


def make_interaction(agent: Agent, replay: Replay, num_actions: int, config: HyperAgentConfig) -> Interaction:
  """Joins an agent and a replay.

  Args:
    agent: the agent.
    replay: the replay, for `config.num_envs` environments.
    num_actions: A, for the random actions while replay fills.
    config: reads num_envs, batch_size, update_ratio, max_abs_reward and prng_impl.

  Raises:
    ValueError: if JAX computes in 64 bits.
  """
  check_32_bits()
  num_envs, batch_size = config.num_envs, config.batch_size
  schedule = update_schedule(config)
  num_updates = schedule.num_updates

  def start(key: PRNGKey, timestep: TimeStep) -> Carry:
    """Fresh state, and the first time step acted in, at random, and remembered."""
    keys = jax.random.split(stream_key(key, 0, Stream.INIT), 1 + num_envs)
    learner = agent.init(keys[0], tree_index(timestep.observation, 0))
    actor = jax.vmap(agent.init_actor)(keys[1:])
    draws = draw_acting(key, 0)
    # Only the shape of what is remembered with a step is needed: replay starts empty.
    _, output = jax.eval_shape(_agent_act, learner, actor, timestep, draws.act)
    empty = replay.init(timestep, draws.explore, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), output.extras))
    state, actor, action = act(learner, empty, actor, timestep, draws, explore=True)
    return Carry(learner, state, actor, action)

  def draw_acting(key: PRNGKey, step: Array | int) -> ActingDraws:
    keys = jax.random.split(stream_key(key, step, Stream.ACT), num_envs)
    explore = jax.random.randint(stream_key(key, step, Stream.EXPLORE), (num_envs,), 0, num_actions)
    return ActingDraws(jax.vmap(agent.draw_act)(keys), explore)

  def draw_learning(key: PRNGKey, step: Array | int) -> LearningDraws:
    update_keys = jax.random.split(stream_key(key, step, Stream.UPDATE), num_updates)
    return LearningDraws(
      replay=jax.random.bits(stream_key(key, step, Stream.REPLAY), (num_updates, batch_size), jnp.uint32),
      update=jax.vmap(lambda k: agent.draw_update(k, batch_size))(update_keys),
      environment=jax.random.split(stream_key(key, step, Stream.ENVIRONMENT), num_envs),
    )

  def draw_block(key: PRNGKey, step: Array, num_steps: int) -> tuple[LearningDraws, ActingDraws]:
    """Drawing for many steps at once costs a fraction of drawing step by step."""

    def draw(step: Array) -> tuple[LearningDraws, ActingDraws]:
      return draw_learning(key, step), draw_acting(key, step + 1)

    # The rbg generators draw from the first key only under vmap, so that numbers would depend on the block.
    over_steps = jax.vmap(draw) if config.prng_impl == 'threefry2x32' else lambda steps: jax.lax.map(draw, steps)
    return over_steps(step + jnp.arange(num_steps))

  def _agent_act(learner: LearnerState, actor: Any, timestep: TimeStep, draws: Any) -> Any:
    return jax.vmap(agent.act, in_axes=(None, 0, 0, 0))(learner, actor, timestep, draws)

  def act(
    learner: LearnerState,
    state: ReplayState,
    actor: Any,
    timestep: TimeStep,
    draws: ActingDraws,
    explore: bool,
    reads_done: Array | float = 0.0,
  ) -> tuple[ReplayState, Any, Array]:
    """Acts in a time step [E], at random if `explore`, and remembers it after all reads (see `replay.Add`)."""
    actor, output = _agent_act(learner, actor, timestep, draws.act)
    action = draws.explore if explore else output.action
    if config.max_abs_reward:  # what is reported counts the rewards as they were
      limit = config.max_abs_reward
      timestep = timestep._replace(reward=jnp.clip(timestep.reward, -limit, limit))
    return replay.add(state, timestep, action, output.extras, reads_done), actor, action

  def _update(learner: LearnerState, state: ReplayState, bits: Array, draws: Any) -> tuple[LearnerState, Losses]:
    batch = replay.sample(state, bits)
    learner, metrics = agent.update(learner, batch, draws, replay_size=replay.size(state))
    loss = metrics['loss']
    finite = jnp.isfinite(loss) & jnp.isfinite(metrics['grad_norm'])
    return learner, Losses(jnp.ones((), jnp.int32), loss, metrics['grad_norm'], finite)

  def _updates(learner: LearnerState, state: ReplayState, draws: LearningDraws) -> tuple[LearnerState, Losses]:
    """The U updates of one step."""
    if num_updates == 1:
      return _update(learner, state, draws.replay[0], tree_index(draws.update, 0))
    learner, each = jax.lax.scan(lambda new, d: _update(new, state, *d), learner, (draws.replay, draws.update))
    return learner, Losses(
      num_updates=jnp.array(num_updates, jnp.int32),
      loss=jnp.sum(each.loss),
      grad_norm=jnp.sum(each.grad_norm),
      finite=jnp.all(each.finite),
    )

  def learn(
    learner: LearnerState, state: ReplayState, draws: LearningDraws, step: Array | int, nothing: Losses
  ) -> tuple[LearnerState, Losses]:
    """The updates that are due after time step number `step`; `nothing` where there are none."""
    if schedule.period == 1:
      return _updates(learner, state, draws)
    return jax.lax.cond(schedule.is_due(step), lambda: _updates(learner, state, draws), lambda: (learner, nothing))

  def advance(
    carry: Carry,
    step: Array | int,
    learning: LearningDraws,
    timestep: TimeStep,
    acting: ActingDraws,
    prefill: bool,
  ) -> tuple[Carry, Losses]:
    """Learns from all that is in replay, then acts in the next time step and remembers it.

    Prefilling acts at random and does not learn. Learning comes first because replay must be read before it is
    written for XLA to write it in place.
    """
    learner, state, actor, _ = carry
    losses = Losses(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()), jnp.array(True))
    if not prefill:
      learner, losses = learn(learner, state, learning, step, losses)
    state, actor, action = act(learner, state, actor, timestep, acting, explore=prefill, reads_done=losses.loss)
    return Carry(learner, state, actor, action), losses

  return Interaction(start, draw_learning, draw_acting, draw_block, advance, schedule)
