"""How much memory a run takes, reckoned from shapes before anything is made."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.devices import available_memory
from hyperagent_jax.config import ConfigError, HyperAgentConfig
from hyperagent_jax.interaction import make_interaction, seed_key
from hyperagent_jax.replay import Replay
from hyperagent_jax.types import Agent, TimeStep

_SPARE_BYTES = 1 << 30  # for programs, the interpreter and all that is small


def tree_bytes(tree: Any) -> int:
  """Bytes of all arrays of a tree, which may be shapes."""
  return sum(int(np.prod(x.shape, dtype=object)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def first_step(num_envs: int, shape: Sequence[int], dtype: Any) -> TimeStep:
  """The shapes of a time step of E environments whose observations are arrays."""
  number = jax.ShapeDtypeStruct((num_envs,), jnp.float32)
  step_type = jax.ShapeDtypeStruct((num_envs,), jnp.int32)
  return TimeStep(*(step_type, number, number), jax.ShapeDtypeStruct((num_envs, *shape), dtype))  # type: ignore[arg-type]


def seed_bytes(
  agent: Agent, replay: Replay, config: HyperAgentConfig, num_actions: int, timestep: TimeStep
) -> tuple[int, int]:
  """What one seed takes.

  Args:
    agent: the agent.
    replay: its replay.
    config: of both.
    num_actions: A.
    timestep: its shapes, [E, ...].

  Returns:
    Bytes of its state, nearly all of it replay or parameters, and of the largest array of an update.
  """
  interaction = make_interaction(agent, replay, num_actions, config)
  key = seed_key(0, config.prng_impl)
  carry = jax.eval_shape(interaction.start, key, timestep)
  batch = jax.eval_shape(replay.sample, carry.replay, jax.ShapeDtypeStruct((config.batch_size,), jnp.uint32))
  size = jax.ShapeDtypeStruct((), jnp.int32)
  update = jax.make_jaxpr(lambda learner, batch, n: agent.update(learner, batch, key, replay_size=n))
  return tree_bytes(carry), largest_array(update(carry.learner, batch, size).jaxpr)


def largest_array(jaxpr: Any) -> int:
  """Bytes of the largest array that a program makes, those of the programs inside it among them."""
  made = [
    tree_bytes([v.aval]) for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, 'dtype') and not _is_key(v)
  ]
  inner = [largest_array(part) for eqn in jaxpr.eqns for value in eqn.params.values() for part in _programs(value)]
  return max([0, *made, *inner])


def _is_key(variable: Any) -> bool:
  return jax.dtypes.issubdtype(variable.aval.dtype, jax.dtypes.prng_key)


def _programs(value: Any) -> Iterator[Any]:
  """The programs among the parameters of an operation."""
  for part in value if isinstance(value, tuple | list) else (value,):
    inner = getattr(part, 'jaxpr', part)
    if hasattr(inner, 'eqns'):
      yield inner


def check(
  flag: str,
  num_seeds: int,
  devices: Sequence[jax.Device],
  one_by_one: bool,
  num_devices: int,
  sizes: tuple[int, int],
) -> None:
  """Refuses, before anything is made, what would not fit.

  Args:
    flag: what decides most, as the user gave it.
    num_seeds: S.
    devices: the first of which says where the run is.
    one_by_one: whether a device runs its seeds one after the other.
    num_devices: that serve.
    sizes: bytes of one seed's state and of the largest array of its update, `seed_bytes`.

  Raises:
    ConfigError: naming what it takes and what there is.
  """
  state, array = sizes
  at_once = num_devices if one_by_one else num_seeds
  working = 2 * array * at_once
  if devices[0].platform == 'cpu':
    # Saving and restoring hold a copy; so does a loop over a device's seeds, of what goes in while it comes out.
    copies = 3 if one_by_one and num_devices < num_seeds else 2
    needed = copies * num_seeds * state + working + _SPARE_BYTES
  else:
    needed = (num_seeds * state + working) // num_devices + _SPARE_BYTES
  available = available_memory()
  if needed > available:
    raise ConfigError(
      f'{flag}: {num_seeds} {"seed takes" if num_seeds == 1 else "seeds take"} about {_gigabytes(needed)} of memory '
      f'({_gigabytes(num_seeds * state)} of state) and {_gigabytes(available)} are free; smaller networks, batches or '
      'replay, or fewer seeds, take less'
    )


def _gigabytes(num_bytes: int) -> str:
  return f'{num_bytes / 1e9:,.1f} GB'
