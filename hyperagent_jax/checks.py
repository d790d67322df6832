"""What an environment may give, looked at from outside of XLA: one line names the part that does not suit.

A number that is not finite would make every parameter NaN, and an observation of another dtype or shape would be
learnt from as something else, both without a word.
"""

from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

_TREES = 'booleans, integers or floats, or dicts and tuples of such'


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
    _check_observation_spec('observation' + jax.tree_util.keystr(path), spec)


def _check_actions(spec: Any) -> None:
  if isinstance(spec, specs.DiscreteArray):
    return
  what = type(spec).__name__
  problem = ''
  if isinstance(spec, specs.Array):
    what += f' of shape {spec.shape} and dtype {spec.dtype}'
    problem = 'continuous actions are not supported; ' if spec.dtype.kind == 'f' else ''
  raise ValueError(f'actions are {what}: {problem}they must be discrete (dm_env.specs.DiscreteArray)')


def _check_observation_spec(name: str, spec: Any) -> None:
  what = type(spec).__name__
  if isinstance(spec, specs.Array):
    if 0 in spec.shape:
      raise ValueError(f'{name} is of shape {spec.shape}: there is nothing in it; no axis may be of length 0')
    if spec.dtype.kind in 'biuf':  # booleans, integers, floats
      return
    what += f' of dtype {spec.dtype}'
  raise ValueError(f'{name} is {what}: must be dm_env.specs.Array of {_TREES}')


def _named_arrays(observation: Any) -> Iterator[tuple[str, np.ndarray]]:
  for path, x in jax.tree_util.tree_leaves_with_path(observation):
    yield 'observation' + jax.tree_util.keystr(path), x


class StepChecks:
  """Checks each time step of one environment against those before it.

  Raises, whichever check:
    ValueError: naming what is wrong and what is allowed.
  """

  def __init__(self, frame_stack: int = 1, frame_padding: str = 'blank') -> None:
    """Takes what replay makes of observations; see `make_replay`."""
    self._frame_stack, self._padding = frame_stack, frame_padding
    self._kinds: list[tuple[str, Any, tuple[int, ...]]] | None = None
    self._before: np.ndarray | None = None

  def __call__(self, timestep: Any) -> None:
    """Looks at a `TimeStep` of NumPy arrays, without an axis of environments."""
    if not np.isfinite(timestep.reward):
      raise ValueError(f'reward={timestep.reward}: must be finite')
    if not 0.0 <= timestep.discount <= 1.0:
      raise ValueError(f'discount={timestep.discount}: must be in [0, 1]')
    arrays = list(_named_arrays(timestep.observation))
    kinds = [(name, x.dtype, x.shape) for name, x in arrays]
    if kinds != self._kinds:
      self._check_kinds(kinds)
    for name, x in arrays:
      _check_numbers(name, x)
    if self._frame_stack > 1:
      stack = timestep.observation
      check_stack(stack, self._frame_stack, self._padding, None if timestep.first() else self._before)
      # A copy: some environments write their next observation into the same array.
      self._before = np.array(stack)
    self._kinds = kinds  # only of a step that is taken

  def _check_kinds(self, kinds: list[tuple[str, Any, tuple[int, ...]]]) -> None:
    """The first time step says what every other one must be."""
    for name, dtype, shape in kinds:
      if dtype.kind not in 'biuf':
        raise ValueError(f'{name} is of dtype {dtype}: must be {_TREES}')
      if 0 in shape:
        raise ValueError(f'{name} is of shape {shape}: there is nothing in it; no axis may be of length 0')
    before = self._kinds
    for old, new in zip(before or (), kinds, strict=False):
      if old != new:
        raise ValueError(
          f'{new[0]} is of dtype {new[1]} and shape {new[2]}: must be as at first, {old[0]} of dtype {old[1]} and '
          f'shape {old[2]}'
        )
    if before is not None and len(before) != len(kinds):
      raise ValueError(f'observation has {len(kinds)} parts: must have {len(before)}, as at first')


def _check_numbers(name: str, x: np.ndarray) -> None:
  """Numbers that are finite and that 32 bits can hold."""
  if x.dtype.kind == 'f':
    if not np.isfinite(x).all():
      raise ValueError(f'{name} holds {x[~np.isfinite(x)].flat[0]}: must be finite')
    if x.dtype.itemsize > 4 and (np.abs(x) > np.finfo(np.float32).max).any():
      raise ValueError(f'{name} holds {x.flat[np.abs(x).argmax()]}: must fit float32')
  elif x.dtype.itemsize == 8:  # JAX keeps such integers in 32 bits
    allowed = np.iinfo(np.uint32 if x.dtype.kind == 'u' else np.int32)
    if x.min() < allowed.min or x.max() > allowed.max:
      worst = x.max() if x.max() > allowed.max else x.min()
      raise ValueError(f'{name} holds {worst}: must be within [{allowed.min}, {allowed.max}], which 32 bits hold')


def check_stack(stack: Any, frame_stack: int, padding: str, before: np.ndarray | None) -> None:
  """Checks that a stack of frames is what replay, which keeps only the newest, will make of it.

  Args:
    stack: an observation [F, ...], oldest first.
    frame_stack: F.
    padding: what replay fills an episode's first stack with, as `make_replay`'s frame_padding.
    before: the stack of the step before; None on an episode's first.

  Raises:
    ValueError: if it is not, saying what is allowed.
  """
  flag = f'frame_stack={frame_stack}'
  if not isinstance(stack, np.ndarray):
    what = f'only arrays can be stacks of frames, but an observation is a {type(stack).__name__}'
    raise ValueError(f'{flag}: {what}; must be 1')
  if stack.ndim < 2 or stack.shape[0] != frame_stack:
    raise ValueError(
      f'{flag}: observation is of shape {stack.shape}: must be a stack of {frame_stack} frames, [{frame_stack}, ...], '
      'oldest first; where observations are no stacks frame_stack must be 1'
    )
  if before is not None:
    if not np.array_equal(stack[:-1], before[1:]):
      raise ValueError(
        f"{flag}: observation's first {frame_stack - 1} frames are not the last {frame_stack - 1} of the step before: "
        'must be a stack of frames, oldest first; where observations are no stacks frame_stack must be 1'
      )
    return
  fits = {'blank': not stack[:-1].any(), 'first': bool((stack[:-1] == stack[-1]).all())}
  if not fits[padding]:
    other = next((name for name in fits if fits[name]), None)
    advice = f'frame_padding must be {other!r}' if other else 'where observations are no stacks frame_stack must be 1'
    wanted = 'blank frames' if padding == 'blank' else 'copies of its first frame'
    raise ValueError(f"{flag} frame_padding={padding!r}: an episode's first stack must begin with {wanted}; {advice}")
