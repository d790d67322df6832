"""The posterior's snapshots, from which the heat maps are drawn."""

import io
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.files import write_atomically
from hyperagent_jax.config import HyperAgentConfig
from hyperagent_jax.networks import deep_sea_observations
from hyperagent_jax.replay import stored_rows
from hyperagent_jax.runner import RunnerState, select_seed
from hyperagent_jax.types import Agent


class Snapshots:
  """Saves the first seed's posterior and visit counts now and then, for the heat maps."""

  def __init__(self, folder: pathlib.Path, agent: Agent, agent_config: HyperAgentConfig):
    self._folder = folder
    self._size = agent_config.grid_size
    self._observations = deep_sea_observations(self._size)[:-1]
    self._posterior = jax.jit(jax.vmap(agent.posterior, in_axes=(None, 0)))

  @staticmethod
  def is_due(iteration: int) -> bool:
    """Every evaluation at first, then more and more rarely: about 16 for every doubling."""
    return iteration % max(1, 2 ** (iteration.bit_length() - 5)) == 0

  def take(self, state: RunnerState, iteration: int, interactions: int, episodes: int) -> None:
    """Saves one if it is due."""
    if not self.is_due(iteration):
      return
    seed = select_seed(state, 0)
    q = jax.device_get(self._posterior(seed.learner, jnp.asarray(self._observations)))
    visited = stored_rows(seed.carry.replay, lambda rows: rows.observation)
    visits = np.bincount(visited.ravel(), minlength=self._size**2 + 1)[self._observations]
    data = io.BytesIO()
    np.savez_compressed(
      data,
      observation=self._observations,
      visits=visits,
      mean=q.mean,
      std=q.std,
      right_action=np.asarray(seed.env_params.right_action),
      env_step=interactions,
      episode=episodes,
    )
    self._folder.mkdir(parents=True, exist_ok=True)
    write_atomically(self._folder / f'{interactions:09d}.npz', data.getvalue())

  @staticmethod
  def discard_after(folder: pathlib.Path, interactions: int) -> None:
    """Removes what a run that is resumed before them has yet to take again."""
    for path in folder.glob('*.npz'):
      if re.fullmatch('[0-9]{9,}', path.stem) and int(path.stem) > interactions:  # what else lies there is not ours
        path.unlink()
