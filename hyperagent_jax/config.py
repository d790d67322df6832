"""Configuration: frozen dataclasses whose fields document, validate and become command-line flags.

A field is declared once, with its help text and what is allowed; `validate` checks values before anything compiles and
`define_flags` makes a flag of every field. Errors are one line that names the flag, the value and what is allowed.
"""

import dataclasses
import math
from typing import Any

from hyperagent_jax import distributions
from hyperagent_jax.replay import FRAME_PADDINGS, MAX_CAPACITY

# Highest values: far beyond what anybody has used, low enough that no product of them overflows unseen.
LARGEST = 1e6  # scales and weights
LEAST = 1e-37  # of a number that is not 0
WIDEST = 2**16  # hidden layers
MOST_INDICES = 4_096


class ConfigError(ValueError):
  """A setting that cannot be used; its text is one line for the user."""


def field(default: Any, help_text: str, *, low: float | None = None, high: float | None = None, choices: tuple = ()):
  """A dataclass field with its documentation and its allowed values (`low` and `high` are included)."""
  metadata = {'help': help_text, 'low': low, 'high': high, 'choices': choices}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class HyperAgentConfig:
  """Every number of HyperAgent; the defaults are the DeepSea column of Table 5 as the published code has it."""

  # The network.
  torso: str = field(
    'deep_sea', 'Torso of the network and of its prior.', choices=('deep_sea', 'mlp', 'nature', 'data_efficient')
  )
  grid_size: int = field(20, 'Side N of the grid that integer observations code (deep_sea torso).', low=2, high=46_340)
  hidden_sizes: tuple[int, ...] = field((64, 64), 'Widths of the hidden layers.', low=1, high=WIDEST)
  index_dim: int = field(4, 'Index dimension M.', low=1, high=MOST_INDICES)
  posterior_scale: float = field(1.0, 'Weight c_post of the trained part of Q.', low=0.0, high=LARGEST)
  prior_scale: float = field(10.0, 'Weight c_prior of the fixed prior.', low=0.0, high=LARGEST)
  prior_std: float = field(
    1.0, 'Length of the rows of A0 and, on the sphere, of b and b0 at initialisation.', low=0.0, high=LARGEST
  )
  prior_row_length: float = field(
    0.0, 'Length of the rows of A0, where it is not prior_std; 0: it is.', low=0.0, high=LARGEST
  )
  bias_init: str = field(
    'sphere',
    'How b and b0 are drawn: uniformly on a sphere of radius prior_std, or as Glorot normal matrices.',
    choices=('sphere', 'glorot'),
  )
  prior_storage: str = field(
    'table',
    "Where prior values are kept: a table over all states (deep_sea torso), or 'replay', beside each stored state.",
    choices=('table', 'replay'),
  )
  pixel_divisor: float = field(255.0, 'What pixels are divided by (screen torsos).', low=1e-3, high=LARGEST)
  normalize_features: bool = field(
    False, 'Scale convolutional features to [0, 1] by their minimum and maximum (screen torsos).'
  )
  convolution_method: str = field(
    'auto',
    'How convolutions are computed, the same numbers to rounding; auto: as products on CPU and CUDA, where these are '
    'faster, as convolutions elsewhere.',
    choices=('auto', 'products', 'convolutions'),
  )
  frame_layout: str = field(
    'pixels',
    'How replay keeps frames: as they are, or cut into the windows that the data-efficient torso multiplies, which is '
    'faster on CPU and gives the same numbers.',
    choices=('pixels', 'windows'),
  )
  compute_dtype: str = field('float32', 'Number format of the convolutions.', choices=('float32', 'bfloat16'))

  # The distributions.
  reference_distribution: str = field('sphere', 'Distribution of the index xi.', choices=distributions.REFERENCES)
  perturbation_distribution: str = field(
    'sphere', 'Distribution of the perturbation z.', choices=distributions.PERTURBATIONS
  )
  num_nonzero: int = field(1, 'Non-zero entries of the sparse distributions.', low=1, high=MOST_INDICES)
  unit_variance_index: bool = field(False, 'Scale sphere and orthogonal indices by sqrt(M), to second moment I.')

  # The loss.
  update_indices: str | int = field(
    'exact', "Update indices N per transition: a number, or 'exact' for the expectation in closed form."
  )
  target_index: str = field(
    'independent',
    'Target index: independent of the update indices, or equal to them.',
    choices=('independent', 'dependent'),
  )
  target_resampling: str = field(
    'state_dependent',
    'An independent target index is drawn once per transition, or once per update.',
    choices=('state_dependent', 'state_independent'),
  )
  target_num_indices: int = field(
    1, 'Indices K over which the target is optimistic; 1: no optimism.', low=1, high=MOST_INDICES
  )
  double_q: bool = field(True, 'Choose the target action with the online network.')
  discount: float = field(0.99, 'Discount factor gamma.', low=0.0, high=1.0)
  n_step: int = field(1, 'Steps n of the return.', low=1, high=1_000)
  sigma: float = field(0.0, 'Scale of the perturbation in the target.', low=0.0, high=LARGEST)
  beta: float = field(0.0, "Weight of the prior regularisation, divided by the replay's size.", low=0.0, high=LARGEST)
  mean_regularizer: bool = field(False, 'Divide the prior regularisation by actions times features.')
  gradient_penalty: float = field(
    0.0, "Weight of the squared norm of the gradient of the mini-batch's mean action value.", low=0.0, high=LARGEST
  )
  max_abs_reward: float = field(
    0.0, 'Rewards are clipped to [-x, x] for learning, not in what is reported; 0: not at all.', low=0.0, high=1e30
  )

  # Acting.
  act_resampling: str = field(
    'state_independent',
    'The acting index is drawn once per episode, or at every step.',
    choices=('state_independent', 'state_dependent'),
  )
  geometric_resampling: bool = field(True, 'Also redraw the acting index with probability 1 - gamma at every step.')
  act_num_indices: int = field(
    1, 'Indices K over which acting is optimistic; 1: Thompson sampling.', low=1, high=MOST_INDICES
  )
  optimism: str = field(
    'sampled',
    'Optimism over K sampled indices, or in closed form over the whole sphere, mean + |factor|: the limit of large K.',
    choices=('sampled', 'supremum'),
  )
  optimism_quantile: float = field(
    1.0, 'Quantile over optimistic indices, for acting and targets; 1: maximum.', low=1e-3, high=1.0
  )

  # The optimizer.
  learning_rate: float = field(1e-3, "Adam's learning rate.", low=1e-12, high=100.0)
  adam_eps: float = field(1.5e-4, "Adam's epsilon.", low=1e-16, high=1e6)
  max_grad_norm: float = field(10.0, 'Global norm to which gradients are clipped.', low=1e-6, high=1e30)
  batch_size: int = field(128, 'Transitions B in a mini-batch.', low=1, high=2**20)
  target_period: int = field(4, 'Updates P between copies of the target network.', low=1, high=10**9)

  # The loop.
  num_envs: int = field(1, 'Environments E per seed.', low=1, high=2**16)
  update_ratio: float = field(
    1.0,
    'Updates per time step, those that start an episode included: a whole number or a fraction 1/k.',
    low=1e-4,
    high=1_024.0,
  )
  min_replay: int = field(128, 'Interactions with random actions before learning starts.', low=1, high=MAX_CAPACITY - 1)
  replay_capacity: int = field(1_000_000, 'Time steps that replay holds, per seed.', low=2, high=MAX_CAPACITY - 1)
  frame_stack: int = field(
    1, 'Frames of an observation, stored once each; 1: observations are stored as they are.', low=1, high=128
  )
  frame_padding: str = field(
    'blank',
    "What fills the stack of frames at an episode's start: blank frames, or the episode's first one. It is the"
    " environment's doing, and replay must know.",
    choices=FRAME_PADDINGS,
  )
  prng_impl: str = field(
    'threefry2x32',
    'Pseudo-random generator. Only of threefry2x32 do the numbers not depend on how steps and seeds are batched.',
    choices=('threefry2x32', 'rbg', 'unsafe_rbg'),
  )

  @property
  def num_update_indices(self) -> int:
    """N, or 0 for the exact expectation."""
    return 0 if self.update_indices == 'exact' else int(self.update_indices)

  @property
  def updates_per_step(self) -> int:
    """Updates after one step of all E environments; 0 where less than one."""
    return round(self.update_ratio * self.num_envs)

  @property
  def min_rows(self) -> int:
    """Rows that replay needs for one whole transition with its stacks."""
    return self.n_step + self.frame_stack + 1

  @property
  def steps_per_update(self) -> int:
    """Steps of all E environments between updates."""
    return max(1, round(1.0 / (self.update_ratio * self.num_envs)))


def _check_field(f: dataclasses.Field, value: Any) -> None:
  """Raises ConfigError unless the value is of the field's kind and within its bounds."""
  low, high, choices = (f.metadata.get(k) for k in ('low', 'high', 'choices'))
  if isinstance(f.default, bool) and choices and value in choices:  # a word besides true and false
    return
  if not _is_kind(value, f.default) and f.name != 'update_indices':  # that may be a word or a number
    raise ConfigError(f'--{f.name}={_show(value)}: must be {_KINDS[type(f.default)]}')
  if choices and value not in choices and not isinstance(value, bool):
    raise ConfigError(f'--{f.name}={value}: must be one of {", ".join(map(str, choices))}')
  if isinstance(value, str | bool):
    return
  for x in value if isinstance(value, tuple) else (value,):
    if not math.isfinite(x):
      raise ConfigError(f'--{f.name}={value}: must be finite')
    if 0.0 < abs(x) < LEAST:
      raise ConfigError(
        f'--{f.name}={_show(value)}: must be 0 or at least {bound_text(LEAST)}, what float32 tells from 0'
      )
    if low is not None and x < low:
      raise ConfigError(f'--{f.name}={_show(value)}: must be at least {bound_text(low)}')
    if high is not None and x > high:
      raise ConfigError(f'--{f.name}={_show(value)}: must be at most {bound_text(high)}')


_KINDS = {
  bool: 'true or false',
  int: 'a whole number',
  float: 'a number',
  str: 'a word',
  tuple: 'whole numbers separated by commas',
}


def _is_kind(value: Any, default: Any) -> bool:
  """Whether a value is of its default's kind; a whole number will do for a float."""
  if isinstance(default, tuple):
    return isinstance(value, tuple) and all(_is_kind(x, 0) for x in value)
  if isinstance(default, bool) or isinstance(value, bool):
    return isinstance(default, bool) and isinstance(value, bool)
  return isinstance(value, int | float if isinstance(default, float) else type(default))


def bound_text(x: float) -> str:
  """A bound as users read it."""
  return str(x) if isinstance(x, int) else f'{x:g}'


def _show(value: Any) -> str:
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def validate_fields(config: Any) -> None:
  """Checks every field of a configuration against its declared bounds.

  Raises:
    ConfigError: on the first field out of bounds.
  """
  for f in dataclasses.fields(config):
    _check_field(f, getattr(config, f.name))


def is_number_of_indices(text: str) -> bool:
  """Whether a text is a whole number of update indices that is allowed."""
  return text.isascii() and text.isdecimal() and 0 < int(text) <= MOST_INDICES


def _whole(x: float) -> bool:
  return abs(x - round(x)) < 1e-6


def validate(config: HyperAgentConfig) -> None:
  """Checks each field, then the rules that join several.

  Raises:
    ConfigError: one line that names the flag, its value and what is allowed.
  """
  validate_fields(config)
  c = config
  number = str(c.update_indices)
  if number != 'exact' and not is_number_of_indices(number):
    raise ConfigError(
      f"--update_indices={c.update_indices}: must be 'exact' or a whole number of at least 1 and at most {MOST_INDICES}"
    )
  if c.update_indices == 'exact' and c.target_index == 'dependent':
    raise ConfigError(
      '--update_indices=exact --target_index=dependent: the exact expectation needs independent targets; '
      'give a number of indices, such as --update_indices=20'
    )
  validate_indices(config)
  validate_loop(config)


def validate_indices(c: HyperAgentConfig) -> None:
  """Checks the rules of indices that are drawn from a distribution.

  Raises:
    ConfigError: one line that names the flag, its value and what is allowed.
  """
  given = f'--optimism={c.optimism}' if c.optimism == 'supremum' else f'--target_num_indices={c.target_num_indices}'
  if c.target_index == 'dependent' and (c.target_num_indices > 1 or c.optimism == 'supremum'):
    raise ConfigError(f'{given} --target_index=dependent: optimism needs independent targets')
  if c.optimism == 'supremum':
    if c.reference_distribution not in ('sphere', 'orthogonal'):
      raise ConfigError('--optimism=supremum: --reference_distribution must be sphere or orthogonal')
    if (c.act_num_indices, c.target_num_indices, c.optimism_quantile) != (1, 1, 1.0):
      raise ConfigError('--optimism=supremum: is over all indices; a number or a quantile of them must not be given')
  if 'sparse' in (c.reference_distribution, c.perturbation_distribution) and c.num_nonzero > c.index_dim:
    raise ConfigError(f'--num_nonzero={c.num_nonzero}: must be at most index_dim={c.index_dim}')


def validate_loop(c: HyperAgentConfig) -> None:
  """Checks the rules that do not depend on how an agent draws its indices.

  Raises:
    ConfigError: one line that names the flag, its value and what is allowed.
  """
  if not c.hidden_sizes:
    raise ConfigError('--hidden_sizes=: must name at least one layer')
  per_step = c.update_ratio * c.num_envs
  if not (_whole(per_step) and per_step >= 1) and not (per_step < 1 and _whole(1 / per_step)):
    raise ConfigError(
      f'--update_ratio={c.update_ratio}: times num_envs={c.num_envs} it must be a whole number or a fraction 1/k'
    )
  if c.min_replay < c.num_envs * c.n_step:
    raise ConfigError(
      f'--min_replay={c.min_replay}: must be at least num_envs * n_step = {c.num_envs * c.n_step}, one whole transition'
    )
  if c.min_replay > c.replay_capacity:
    raise ConfigError(f'--min_replay={c.min_replay}: must be at most replay_capacity={c.replay_capacity}')
  if c.replay_capacity // c.num_envs < c.min_rows:
    raise ConfigError(
      f'--replay_capacity={c.replay_capacity}: must be at least num_envs * (n_step + frame_stack + 1) = '
      f'{c.num_envs * c.min_rows}'
    )
  if c.prior_storage == 'table' and c.torso != 'deep_sea':
    raise ConfigError(f'--prior_storage=table: the {c.torso} torso has no enumerable states; must be replay')
  if c.frame_layout == 'windows' and (c.torso != 'data_efficient' or c.convolution_method == 'convolutions'):
    raise ConfigError('--frame_layout=windows: only for --torso=data_efficient computed as products')
