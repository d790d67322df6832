"""Named settings, each a complete configuration."""

from hyperagent_jax.config import HyperAgentConfig


def deep_sea(size: int = 20) -> HyperAgentConfig:
  """HyperAgent on DeepSea (Table 5), with the exact expectation over update indices and sigma 0.

  Args:
    size: side N of the grid, at least 2.
  """
  return HyperAgentConfig(grid_size=size)


def vector_observations() -> HyperAgentConfig:
  """The same agent for observations that are arrays, such as bsuite's: an MLP on the flattened observation."""
  return HyperAgentConfig(torso='mlp', prior_storage='replay')
