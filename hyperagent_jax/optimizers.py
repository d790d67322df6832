"""Adam with global-norm clipping, arranged for small networks in a compiled loop.

The numbers are those of `optax.chain(clip_by_global_norm(c), adam(lr, eps=eps))` to rounding. Two things differ: the
clipping factor is folded into the moments instead of being applied to the gradients first, and all small arrays are
one vector, so that an update is a few operations and not a few for every array. See `benchmarks/` for what it saves.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from hyperagent_jax.types import Array, Params

_SMALL = 2**16  # Larger arrays gain nothing from being joined and would cost a copy.


class ClippedAdamState(NamedTuple):
  """Adam's moments, packed."""

  count: Array  # type: ignore[assignment]  # [] int32 updates done; optax's name, which is a tuple's method too
  mu: list[Array]
  nu: list[Array]


def _pack(tree: Params) -> list[Array]:
  """One vector of all small arrays, then the large ones."""
  leaves = jax.tree.leaves(tree)
  small = [jnp.ravel(x) for x in leaves if x.size < _SMALL]
  return ([jnp.concatenate(small)] if small else []) + [x for x in leaves if x.size >= _SMALL]


def _unpack(packed: list[Array], like: Params) -> Params:
  """The inverse of `_pack`."""
  leaves, tree = jax.tree.flatten(like)
  has_small = any(x.size < _SMALL for x in leaves)
  large = iter(packed[1:] if has_small else packed)
  out, start = [], 0
  for x in leaves:
    if x.size < _SMALL:
      out.append(packed[0][start : start + x.size].reshape(x.shape))
      start += x.size
    else:
      out.append(next(large))
  return jax.tree.unflatten(tree, out)


def clipped_adam(
  learning_rate: float, eps: float, max_grad_norm: float, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
  """Clipping to a global norm, then Adam (Kingma and Ba, 2015), as one optax transformation.

  Args:
    learning_rate: above 0.
    eps: added to the root of the second moment, above 0.
    max_grad_norm: gradients of a larger global norm are scaled down to it, above 0.
    b1: decay of the first moment, in [0, 1).
    b2: decay of the second moment, in [0, 1).
  """

  def init(params: Params) -> ClippedAdamState:
    zeros = lambda: [jnp.zeros_like(x) for x in _pack(params)]
    return ClippedAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

  def update(grads: Params, state: ClippedAdamState, params: Params = None) -> tuple[Params, ClippedAdamState]:
    del params
    packed = _pack(grads)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in packed))
    clip = jnp.where(norm < max_grad_norm, 1.0, max_grad_norm / norm)
    count = state.count + 1
    t = count.astype(jnp.float32)
    mu_weight, nu_weight = (1.0 - b1) * clip, (1.0 - b2) * clip * clip
    mu = [b1 * m + mu_weight * g for m, g in zip(state.mu, packed, strict=True)]
    nu = [b2 * v + nu_weight * (g * g) for v, g in zip(state.nu, packed, strict=True)]
    step_size = learning_rate / (1.0 - b1**t)
    root_scale = jax.lax.rsqrt(1.0 - b2**t)
    updates = [-step_size * m / (root_scale * jnp.sqrt(v) + eps) for m, v in zip(mu, nu, strict=True)]
    return _unpack(updates, grads), ClippedAdamState(count, mu, nu)

  return optax.GradientTransformation(init, update)
