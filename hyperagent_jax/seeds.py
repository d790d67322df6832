"""Running a function for every seed: spread over devices, and on each device mapped or vmapped.

On a CPU one seed after the other (`map`) is fastest, since cores are better used by a device each than by batched small
matrices; on GPU and TPU all at once (`vmap`) is. Either way arrays without an axis of seeds are passed as they are.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SEED_AXES = ('map', 'vmap')
Axes = Any  # A tree of 0 (an axis of seeds) and None (shared by all seeds), or a prefix of one, as for jax.vmap.


def num_cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def default_seed_axis(devices: Sequence[jax.Device]) -> str:
  """How these devices run several seeds fastest."""
  return 'map' if devices[0].platform == 'cpu' else 'vmap'


def num_devices_used(num_seeds: int, num_devices: int) -> int:
  """The devices that serve, of so many: the greatest number that divides the seeds."""
  return max(n for n in range(1, num_devices + 1) if num_seeds % n == 0)


def mesh_for(num_seeds: int, devices: Sequence[jax.Device]) -> Mesh:
  """The devices over which seeds are spread."""
  return Mesh(np.asarray(devices[: num_devices_used(num_seeds, len(devices))]), ('seeds',))


def per_array(axes: Axes, tree: Any, make: Callable[[bool], Any]) -> Any:
  """A tree like `tree` with `make(has an axis of seeds)` at every array; `axes` is a prefix of it."""
  fill = lambda axis, part: jax.tree.map(lambda _: make(axis is not None), part)
  return jax.tree.map(fill, axes, tree, is_leaf=lambda x: x is None)


def shardings(axes: Axes, tree: Any, mesh: Mesh) -> Any:
  """How each array of a tree lies on the mesh."""
  return per_array(axes, tree, lambda seeded: NamedSharding(mesh, P('seeds') if seeded else P()))


def _one_by_one(f: Callable[..., Any], in_axes: Axes, out_axes: Axes) -> Callable[..., Any]:
  """`jax.vmap(f, in_axes, out_axes)` as a loop."""

  def mapped(*args: Any) -> Any:
    leaves, tree = jax.tree.flatten(args)
    seeded = jax.tree.leaves(per_array(in_axes, args, bool))
    split = [x for x, s in zip(leaves, seeded, strict=True) if s]

    def one(mine: list[Any]) -> Any:
      mine_left = iter(mine)
      return f(*jax.tree.unflatten(tree, [next(mine_left) if s else x for x, s in zip(leaves, seeded, strict=True)]))

    if split[0].shape[0] == 1:  # a loop of one would copy replay into the loop and out of it
      out = one([x[0] for x in split])
      return jax.tree.map(lambda s, x: x[None] if s else x, per_array(out_axes, out, bool), out)
    out = jax.lax.map(one, split)
    return jax.tree.map(lambda s, x: x if s else x[0], per_array(out_axes, out, bool), out)

  return mapped


def over_seeds(
  f: Callable[..., Any], in_axes: Axes, out_axes: Axes, devices: Sequence[jax.Device], seed_axis: str
) -> Callable[..., Any]:
  """`f` for all seeds.

  Args:
    f: a function of one seed's arrays.
    in_axes: which arguments have an axis of seeds; at least one has.
    out_axes: which results have.
    devices: devices to spread over, of which as many serve as divide the number of seeds.
    seed_axis: 'map' or 'vmap'.

  Returns:
    A function to be jitted.
  """

  def spread(*args: Any) -> Any:
    sizes = [
      x.shape[0] for x, s in zip(*map(jax.tree.leaves, (args, per_array(in_axes, args, bool))), strict=True) if s
    ]
    mesh = mesh_for(sizes[0], devices)
    on_device = jax.vmap(f, in_axes, out_axes) if seed_axis == 'vmap' else _one_by_one(f, in_axes, out_axes)
    specs = lambda axes: jax.tree.map(lambda a: P() if a is None else P('seeds'), axes, is_leaf=lambda a: a is None)
    sharded = jax.shard_map(on_device, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False)
    return sharded(*args)

  return spread
