"""Settings of the rivals: those of HyperAgent and a few more; each system declares which of them it reads."""

import dataclasses
from typing import TypeVar

from hyperagent_jax import presets
from hyperagent_jax.config import (
  LARGEST,
  MOST_INDICES,
  WIDEST,
  ConfigError,
  HyperAgentConfig,
  field,
  is_number_of_indices,
  validate_fields,
  validate_indices,
  validate_loop,
)

Config = TypeVar('Config', bound=HyperAgentConfig)


@dataclasses.dataclass(frozen=True)
class RivalConfig(HyperAgentConfig):
  """HyperAgent's settings and those that only a rival has."""

  shared_indices: bool = field(False, 'All transitions of a mini-batch share their update and target indices.')
  ensemble_size: int = field(4, 'Members M of an ensemble.', low=1, high=MOST_INDICES)
  mask_probability: float = field(
    1.0, 'Probability with which a member of an ensemble learns from a transition.', low=0.0, high=1.0
  )
  epsilon_final: float = field(0.1, 'Probability of a random action after its decay from 1.', low=0.0, high=1.0)
  epsilon_steps: int = field(
    20_000, 'Steps of one environment over which that probability decays linearly.', low=1, high=10**9
  )
  epsilon_evaluation: float = field(0.05, 'Probability of a random action in evaluation.', low=0.0, high=1.0)
  noise_init: float = field(0.5, 'Initial scale sigma_0 of the noise in the weights.', low=0.0, high=LARGEST)
  noise_scale: float = field(
    1e-4, 'Square root of the inverse of the inverse temperature, of Langevin noise.', low=0.0, high=LARGEST
  )
  bias_factor: float = field(1.0, 'Weight a of the preconditioned momentum in the drift.', low=0.0, high=LARGEST)
  num_inner_steps: int = field(1, 'Gradient steps J of an update, towards the same targets.', low=1, high=1_000)
  epinet_hidden_sizes: tuple[int, ...] = field((50,), "Widths of the epinet's hidden layers.", low=1, high=WIDEST)
  prior_hidden_sizes: tuple[int, ...] = field(
    (5,), "Widths of the hidden layers of the epinet's priors.", low=1, high=WIDEST
  )


# What every system reads; the runner and replay among them.
COMMON = frozenset({
  *('torso', 'grid_size', 'hidden_sizes', 'pixel_divisor', 'normalize_features', 'convolution_method'),
  *('frame_layout', 'compute_dtype', 'double_q', 'discount', 'n_step', 'max_abs_reward'),
  *('learning_rate', 'batch_size', 'target_period'),
  *('num_envs', 'update_ratio', 'min_replay', 'replay_capacity', 'frame_stack', 'frame_padding', 'prng_impl'),
})  # fmt: skip
ADAM = frozenset({'adam_eps', 'max_grad_norm'})
PRIOR = frozenset({'prior_scale', 'prior_storage'})
ACTING_INDEX = frozenset({'act_resampling', 'geometric_resampling'})
OPTIMISM = frozenset({'act_num_indices', 'optimism_quantile', 'target_num_indices'})
SAMPLED_INDEX = ACTING_INDEX | OPTIMISM | {
  *('reference_distribution', 'unit_variance_index', 'num_nonzero', 'index_dim'),
  *('update_indices', 'target_index', 'target_resampling', 'shared_indices'),
}  # fmt: skip
PERTURBATION = frozenset({'sigma', 'perturbation_distribution', 'num_nonzero'})


def from_preset(preset: HyperAgentConfig, **changes: object) -> RivalConfig:
  """A rival's settings that depart from a preset of HyperAgent."""
  return RivalConfig(**{**{f.name: getattr(preset, f.name) for f in dataclasses.fields(preset)}, **changes})


def deep_sea_preset(size: int, **changes: object) -> RivalConfig:
  """HyperAgent's settings on DeepSea with a rival's changes."""
  return from_preset(presets.deep_sea(size), **changes)


def atari_preset(preset: HyperAgentConfig, **changes: object) -> RivalConfig:
  """One of HyperAgent's presets for Atari with a rival's changes.

  What only HyperAgent has is left out: the perturbation is off, beta and the gradient penalty are not read.
  """
  return from_preset(preset, **{'sigma': 0.0, **changes})


def validate_rival(config: RivalConfig, fields: frozenset[str]) -> None:
  """Checks the fields that a system reads and the rules that join them.

  Raises:
    ConfigError: one line that names the flag, its value and what is allowed.
  """
  validate_fields(config)
  validate_loop(config)
  if 'index_dim' in fields:
    validate_indices(config)
  number = str(config.update_indices)
  if 'update_indices' in fields and not is_number_of_indices(number):
    allowed = f'must be a whole number of at least 1 and at most {MOST_INDICES} for this agent'
    raise ConfigError(f'--update_indices={number}: {allowed}')
  if config.sigma > 0 and 'sigma' not in fields:
    raise ConfigError(f'--sigma={config.sigma}: must be 0 for this agent')
  if config.sigma > 0 and config.perturbation_distribution == 'orthogonal':
    raise ConfigError('--perturbation_distribution=orthogonal: only HyperAgent deals it out row by row')


def refuse_unread(names: set[str], fields: frozenset[str], agent: str) -> None:
  """Refuses settings that an agent would ignore.

  Raises:
    ConfigError: naming the first.
  """
  for name in sorted(names - fields):
    raise ConfigError(f'--{name}: {agent} has no such setting')
