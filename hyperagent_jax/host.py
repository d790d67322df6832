"""Training from Python, a step at a time, on any `dm_env.Environment`.

The same computation as the fused runner's, with the same random numbers; only the environment is stepped outside of
XLA. Use it for environments that are not JAX programs, and to read or debug a run step by step.
"""

from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.interaction import Carry, Losses, make_interaction, seed_key
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
      config: reads min_replay, batch_size, update_ratio and prng_impl; num_envs must be 1.
      seed: source of all randomness.

    Raises:
      ValueError: if num_envs is not 1.
    """
    if config.num_envs != 1:
      raise ValueError(f'num_envs={config.num_envs}: the host driver steps one environment')
    self._interaction = make_interaction(agent, replay, num_actions, config)
    self.num_actions = num_actions
    self._min_replay = config.min_replay
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

    Call it for every time step, LAST included, whose action means nothing. An observation is an array, a number or a
    pytree of them (dicts and tuples), of the same structure, shapes and dtypes in every step; `check_specs` tells
    whether an environment's are fit.
    """
    batched = jax.tree.map(lambda x: np.asarray(x)[None], from_dm_env(timestep))
    if self._carry is None:
      self._carry = self._start(self._key, batched)
    else:
      prefill = self._num_interactions < self._min_replay
      if self._step % _BLOCK == 0:
        self._draws = self._draw(self._key, np.int32(self._step), _BLOCK)
      self._carry, self.losses = self._advance(
        carry=self._carry, draws=self._draws, step=np.int32(self._step), timestep=batched, prefill=prefill
      )
      self._step += 1
    self._num_interactions += not timestep.first()
    return int(self._carry.action[0])


def check_specs(environment: dm_env.Environment) -> None:
  """Checks that an agent can act in an environment and take in its observations.

  Raises:
    ValueError: naming the spec and what is allowed, unless actions are a `dm_env.specs.DiscreteArray`, which starts
      from 0, and observations are numbers: a `dm_env.specs.Array` of a numeric dtype, or dicts and tuples of such.
  """
  _check_actions(environment.action_spec())
  # None would vanish from the tree, and a list is read as one array.
  is_leaf = lambda x: x is None or isinstance(x, list)
  for path, spec in jax.tree_util.tree_leaves_with_path(environment.observation_spec(), is_leaf=is_leaf):
    _check_observation('observation' + jax.tree_util.keystr(path), spec)


def _check_actions(spec: Any) -> None:
  if isinstance(spec, specs.DiscreteArray):
    return
  what = type(spec).__name__
  problem = ''
  if isinstance(spec, specs.Array):
    what += f' of shape {spec.shape} and dtype {spec.dtype}'
    problem = 'continuous actions are not supported; ' if spec.dtype.kind == 'f' else ''
  raise ValueError(f'actions are {what}: {problem}they must be discrete (dm_env.specs.DiscreteArray)')


def _check_observation(name: str, spec: Any) -> None:
  what = type(spec).__name__
  if isinstance(spec, specs.Array):
    if spec.dtype.kind in 'biuf':  # booleans, integers, floats
      return
    what += f' of dtype {spec.dtype}'
  raise ValueError(
    f'{name} is {what}: must be dm_env.specs.Array of booleans, integers or floats, or dicts and tuples of such'
  )


def run_loop(agent: HostAgent, environment: dm_env.Environment) -> Iterator[tuple[dm_env.TimeStep, int]]:
  """Runs an agent in an environment for ever, over episode ends, yielding each time step with its action.

  Take as many as you want: `for timestep, action in itertools.islice(run_loop(agent, environment), 1000)`.

  Raises:
    ValueError: at once, if the environment's specs do not suit (`check_specs`) or its actions are not the agent's.
  """
  check_specs(environment)
  num_actions = environment.action_spec().num_values
  if num_actions != agent.num_actions:
    raise ValueError(f'the environment has {num_actions} actions, but the agent was made for {agent.num_actions}')
  return _steps(agent, environment)


def _steps(agent: HostAgent, environment: dm_env.Environment) -> Iterator[tuple[dm_env.TimeStep, int]]:
  timestep = environment.reset()
  while True:
    action = agent.step(timestep)
    yield timestep, action
    timestep = environment.step(action)
