"""An agent and its replay from a configuration alone, where nothing of your own goes in between."""

from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.config import HyperAgentConfig, validate
from hyperagent_jax.networks import frame_layout, make_network
from hyperagent_jax.replay import Replay, make_replay
from hyperagent_jax.types import Agent


def make(config: HyperAgentConfig, num_actions: int) -> Agent:
  """HyperAgent with its own network and optimizer.

  Args:
    config: such as `presets.deep_sea()`.
    num_actions: A, at least 1.

  Raises:
    ConfigError: if the configuration is invalid.
  """
  validate(config)
  return make_hyperagent(make_network(config, num_actions), make_optimizer(config), config)


def make_replay_for(config: HyperAgentConfig, capacity: int | None = None) -> Replay:
  """The replay that an agent of this configuration learns from, HyperAgent or a rival.

  Args:
    config: reads replay_capacity, num_envs, n_step, discount, frame_stack, frame_layout and frame_padding.
    capacity: time steps held over all environments, if not config.replay_capacity.

  Raises:
    ValueError: if the capacity is too small for one transition.
  """
  capacity = config.replay_capacity if capacity is None else capacity
  layout = frame_layout(config)
  return make_replay(
    capacity,
    config.num_envs,
    config.n_step,
    config.discount,
    config.frame_stack,
    layout,
    config.frame_padding,
  )
