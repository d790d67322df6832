"""Training from Python, a step at a time, on any `dm_env.Environment`.

The same computation as the fused runner's, with the same random numbers; only the environment is stepped outside of
XLA. Use it for environments that are not JAX programs, and to read or debug a run step by step.
"""

from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import numpy as np

from hyperagent_jax.checks import StepChecks, check_specs
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.interaction import MAX_COUNT, Carry, Losses, make_interaction, seed_key
from hyperagent_jax.replay import Replay
from hyperagent_jax.types import Agent, LearnerState, TimeStep, from_dm_env, tree_index

_BLOCK = 64  # steps for which random numbers are drawn at once


class HostAgent:
  """An agent that acts in, remembers and learns from one time step after another."""

  def __init__(self, agent: Agent, replay: Replay, num_actions: int, config: HyperAgentConfig, seed: int):
    """Creates the agent; it is compiled when it sees its first time steps.

    Args:
      agent: the agent.
      replay: made for one environment.
      num_actions: A.
      config: reads min_replay, batch_size, update_ratio, max_abs_reward and prng_impl; num_envs must be 1.
      seed: source of all randomness.

    Raises:
      ValueError: if num_envs is not 1.
    """
    if config.num_envs != 1:
      raise ValueError(f'num_envs={config.num_envs}: the host driver steps one environment')
    self._interaction = make_interaction(agent, replay, num_actions, config)
    self.num_actions = num_actions
    self._min_replay = config.min_replay
    self._check = StepChecks(replay.frame_stack, replay.frame_padding)
    self._can_sample = jax.jit(replay.can_sample)
    self._prefilled, self._over = False, True
    self._key = seed_key(seed, config.prng_impl)
    self._carry: Carry | None = None
    self._step = 0
    self._num_interactions = 0
    self.losses: Losses | None = None
    self._draws: Any = None
    self._start = jax.jit(self._interaction.start)
    self._draw = jax.jit(self._interaction.draw_block, static_argnums=2)
    self._advance = jax.jit(self._advance_fn, static_argnames='prefill', donate_argnames='carry')

  def _advance_fn(self, carry: Carry, draws: Any, step: int, timestep: TimeStep, prefill: bool) -> tuple[Carry, Losses]:
    learning, acting = tree_index(draws, step % _BLOCK)
    return self._interaction.advance(carry, step, learning, timestep, acting, prefill)

  @property
  def learner(self) -> LearnerState:
    """The learner's present state; it is donated to the next `step`, so copy what you want to keep."""
    if self._carry is None:
      raise ValueError('the agent has no state before its first step')
    return self._carry.learner

  @property
  def num_interactions(self) -> int:
    """Environment steps seen, resets not counted."""
    return self._num_interactions

  def step(self, timestep: dm_env.TimeStep) -> int:
    """Learns from what has been remembered, remembers the time step and returns an action for it.

    Call it for every time step, LAST included, whose action means nothing. A FIRST step ends the episode under way, as
    truncated, if its LAST step never came. An observation is an array, a number or a pytree of them (dicts and tuples),
    of the same structure, shapes and dtypes in every step; `check_specs` tells whether an environment's are fit.

    Raises:
      ValueError: naming a reward, a discount or an observation that cannot be used, and what is allowed; the agent is
        as before, and may go on with another time step.
    """
    for name in ('reward', 'discount'):
      if np.shape(getattr(timestep, name)) != ():
        raise ValueError(f'{name} is of shape {np.shape(getattr(timestep, name))}: must be one number')
    arrays = from_dm_env(timestep)
    self._check(arrays)
    if self._step >= MAX_COUNT:
      raise ValueError(f'time step {self._step}: must be below {MAX_COUNT}, as far as counters go')
    batched = jax.tree.map(lambda x: np.asarray(x)[None], arrays)
    # An episode that is abandoned takes its newest step out of what can be drawn, which may have been all.
    self._prefilled &= self._over or not timestep.first()
    self._over = timestep.last()
    if self._carry is None:
      self._carry = self._start(self._key, batched)
    else:
      prefill = not self._may_learn(self._carry)
      if self._step % _BLOCK == 0:
        self._draws = self._draw(self._key, np.int32(self._step), _BLOCK)
      self._carry, self.losses = self._advance(
        carry=self._carry, draws=self._draws, step=np.int32(self._step), timestep=batched, prefill=prefill
      )
      self._step += 1
    self._num_interactions += not timestep.first()
    return int(self._carry.action[0])

  def _may_learn(self, carry: Carry) -> bool:
    """Whether replay has been filled; episodes cut short may leave it without a whole transition for longer."""
    if not self._prefilled:
      self._prefilled = self._num_interactions >= self._min_replay and bool(self._can_sample(carry.replay))
    return self._prefilled


def run_loop(agent: HostAgent, environment: dm_env.Environment) -> Iterator[tuple[dm_env.TimeStep, int]]:
  """Runs an agent in an environment for ever, over episode ends, yielding each time step with its action.

  Take as many as you want: `for timestep, action in itertools.islice(run_loop(agent, environment), 1000)`.

  Raises:
    ValueError: at once, if the environment's specs do not suit (`check_specs`) or its actions are not the agent's; and
      later, if at the start of an episode they no longer are, or a time step cannot be used (`HostAgent.step`).
  """
  check_specs(environment)
  _check_num_actions(agent, environment)
  return _steps(agent, environment)


def _check_num_actions(agent: HostAgent, environment: dm_env.Environment) -> None:
  num_actions = environment.action_spec().num_values
  if num_actions != agent.num_actions:
    raise ValueError(f'the environment has {num_actions} actions, but the agent was made for {agent.num_actions}')


def _steps(agent: HostAgent, environment: dm_env.Environment) -> Iterator[tuple[dm_env.TimeStep, int]]:
  timestep = environment.reset()
  while True:
    if timestep.first():
      _check_num_actions(agent, environment)
    action = agent.step(timestep)
    yield timestep, action
    timestep = environment.step(action)
