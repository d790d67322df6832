"""Validation, flags, and that every field means something."""

import ast
import dataclasses
import pathlib

import pytest
from absl import flags

import hyperagent_jax
from experiments.common.settings import config_differences, config_from_flags, config_to_dict, define_config_flags
from hyperagent_jax import config as config_lib
from hyperagent_jax import presets
from hyperagent_jax.config import ConfigError, HyperAgentConfig, validate

FIELDS = {f.name: f for f in dataclasses.fields(HyperAgentConfig)}


@pytest.mark.parametrize(
  'config',
  [
    HyperAgentConfig(),
    presets.deep_sea(2),
    presets.deep_sea(200),
    presets.vector_observations(),
    presets.atari(),
    presets.atari_published_code(),
    presets.fast_cpu(),
    HyperAgentConfig(update_indices='20', target_index='dependent'),
    HyperAgentConfig(update_ratio=0.5),
    HyperAgentConfig(update_ratio=0.25, num_envs=4),
    HyperAgentConfig(update_ratio=0.5, num_envs=3 * 2),
    HyperAgentConfig(update_ratio=1 / 3),
    HyperAgentConfig(update_ratio=1 / 6, num_envs=3),
    HyperAgentConfig(index_dim=1, num_nonzero=1, reference_distribution='sparse'),
    HyperAgentConfig(num_nonzero=9),  # no sparse distribution, no limit
    HyperAgentConfig(discount=0.0),
    HyperAgentConfig(discount=1.0),
    HyperAgentConfig(prior_scale=0.0, prior_std=0.0, sigma=0.0, beta=0.0),
    HyperAgentConfig(grid_size=46340),
    HyperAgentConfig(torso='data_efficient', prior_storage='replay', compute_dtype='bfloat16', pixel_divisor=1e-3),
    HyperAgentConfig(convolution_method='products', normalize_features=True),  # no screen, nothing to do
    HyperAgentConfig(replay_capacity=40, min_replay=20, n_step=5, num_envs=4, frame_stack=4),
    HyperAgentConfig(gradient_penalty=0.0, max_abs_reward=0.5, mean_regularizer=True),
  ],
)
def test_valid_configurations_pass(config):
  validate(config)


# Changes, and what the one line of the error must hold: the flag, its value, what is allowed.
INVALID = [
  ({'torso': 'cnn'}, '--torso=cnn', 'one of deep_sea, mlp, nature, data_efficient'),
  ({'grid_size': 1}, '--grid_size=1', 'at least 2'),
  ({'grid_size': 46341}, '--grid_size=46341', 'at most 46340'),
  ({'hidden_sizes': ()}, '--hidden_sizes=', 'at least one layer'),
  ({'hidden_sizes': (64, 0)}, '--hidden_sizes=64,0', 'at least 1'),
  ({'index_dim': 0}, '--index_dim=0', 'at least 1'),
  ({'index_dim': -3}, '--index_dim=-3', 'at least 1'),
  ({'posterior_scale': -1.0}, '--posterior_scale=-1.0', 'at least 0'),
  ({'prior_scale': -0.5}, '--prior_scale=-0.5', 'at least 0'),
  ({'prior_std': -0.5}, '--prior_std=-0.5', 'at least 0'),
  ({'prior_row_length': -0.5}, '--prior_row_length=-0.5', 'at least 0'),
  ({'prior_storage': 'disk'}, '--prior_storage=disk', 'one of table, replay'),
  ({'torso': 'mlp'}, '--prior_storage=table', 'must be replay'),
  ({'torso': 'nature'}, '--prior_storage=table', 'must be replay'),
  ({'torso': 'data_efficient'}, '--prior_storage=table', 'must be replay'),
  ({'bias_init': 'zeros'}, '--bias_init=zeros', 'one of sphere, glorot'),
  ({'pixel_divisor': 0.0}, '--pixel_divisor=0.0', 'at least 0.001'),
  ({'pixel_divisor': -255.0}, '--pixel_divisor=-255.0', 'at least 0.001'),
  ({'convolution_method': 'fft'}, '--convolution_method=fft', 'one of auto, products, convolutions'),
  ({'frame_layout': 'rows'}, '--frame_layout=rows', 'one of pixels, windows'),
  ({'frame_layout': 'windows'}, '--frame_layout=windows', 'only for --torso=data_efficient'),
  (
    {'frame_layout': 'windows', 'torso': 'nature', 'prior_storage': 'replay'},
    '--frame_layout=windows',
    'only for --torso=data_efficient',
  ),
  (
    {
      'frame_layout': 'windows',
      'torso': 'data_efficient',
      'prior_storage': 'replay',
      'convolution_method': 'convolutions',
    },
    '--frame_layout=windows',
    'computed as products',
  ),
  ({'compute_dtype': 'float16'}, '--compute_dtype=float16', 'one of float32, bfloat16'),
  ({'reference_distribution': 'normal'}, '--reference_distribution=normal', 'one of sphere, gaussian'),
  ({'perturbation_distribution': 'one_hot'}, '--perturbation_distribution=one_hot', 'one of sphere, gaussian'),
  ({'num_nonzero': 0}, '--num_nonzero=0', 'at least 1'),
  ({'num_nonzero': 5, 'reference_distribution': 'sparse'}, '--num_nonzero=5', 'at most index_dim=4'),
  ({'num_nonzero': 5, 'perturbation_distribution': 'sparse'}, '--num_nonzero=5', 'at most index_dim=4'),
  ({'update_indices': 'all'}, '--update_indices=all', "'exact' or a whole number"),
  ({'update_indices': '0'}, '--update_indices=0', "'exact' or a whole number"),
  ({'update_indices': '-2'}, '--update_indices=-2', "'exact' or a whole number"),
  ({'update_indices': '2.5'}, '--update_indices=2.5', "'exact' or a whole number"),
  ({'update_indices': ''}, '--update_indices=', "'exact' or a whole number"),
  ({'target_index': 'same'}, '--target_index=same', 'one of independent, dependent'),
  ({'target_index': 'dependent'}, '--target_index=dependent', 'needs independent targets'),
  (
    {'target_index': 'dependent', 'update_indices': '20', 'target_num_indices': 2},
    '--target_num_indices=2',
    'needs independent targets',
  ),
  ({'target_resampling': 'never'}, '--target_resampling=never', 'one of state_dependent, state_independent'),
  ({'target_num_indices': 0}, '--target_num_indices=0', 'at least 1'),
  ({'discount': -0.1}, '--discount=-0.1', 'at least 0'),
  ({'discount': 1.01}, '--discount=1.01', 'at most 1'),
  ({'discount': float('nan')}, '--discount=nan', 'finite'),
  ({'n_step': 0}, '--n_step=0', 'at least 1'),
  ({'sigma': -1e-4}, '--sigma=-0.0001', 'at least 0'),
  ({'sigma': float('inf')}, '--sigma=inf', 'finite'),
  ({'beta': -1.0}, '--beta=-1.0', 'at least 0'),
  ({'gradient_penalty': -0.01}, '--gradient_penalty=-0.01', 'at least 0'),
  ({'max_abs_reward': -1.0}, '--max_abs_reward=-1.0', 'at least 0'),
  ({'max_abs_reward': float('inf')}, '--max_abs_reward=inf', 'finite'),
  ({'act_resampling': 'never'}, '--act_resampling=never', 'one of state_independent, state_dependent'),
  ({'act_num_indices': 0}, '--act_num_indices=0', 'at least 1'),
  ({'optimism': 'hope'}, '--optimism=hope', 'one of sampled, supremum'),
  ({'optimism': 'supremum', 'reference_distribution': 'cube'}, '--optimism=supremum', 'must be sphere or orthogonal'),
  ({'optimism': 'supremum', 'act_num_indices': 4}, '--optimism=supremum', 'must not be given'),
  (
    {'optimism': 'supremum', 'target_index': 'dependent', 'update_indices': '2'},
    '--optimism=supremum',
    'needs independent targets',
  ),
  ({'optimism_quantile': 0.0}, '--optimism_quantile=0.0', 'at least 0.001'),
  ({'optimism_quantile': 1.5}, '--optimism_quantile=1.5', 'at most 1'),
  ({'learning_rate': 0.0}, '--learning_rate=0.0', 'at least 1e-12'),
  ({'learning_rate': -1e-3}, '--learning_rate=-0.001', 'must be'),
  ({'learning_rate': 1e-320}, '--learning_rate=1e-320', 'must be 0 or at least 1e-37'),
  ({'prior_scale': 1e-320}, '--prior_scale=1e-320', 'must be 0 or at least 1e-37'),
  ({'adam_eps': 0.0}, '--adam_eps=0.0', 'at least 1e-16'),
  ({'max_grad_norm': 0.0}, '--max_grad_norm=0.0', 'at least 1e-06'),
  ({'max_grad_norm': -1.0}, '--max_grad_norm=-1.0', 'at least 1e-06'),
  ({'batch_size': 0}, '--batch_size=0', 'at least 1'),
  ({'target_period': 0}, '--target_period=0', 'at least 1'),
  ({'num_envs': 0}, '--num_envs=0', 'at least 1'),
  ({'update_ratio': 0.0}, '--update_ratio=0.0', 'at least 0.0001'),
  ({'update_ratio': -1.0}, '--update_ratio=-1.0', 'at least 0.0001'),
  ({'update_ratio': 1.5}, '--update_ratio=1.5', 'a whole number or a fraction 1/k'),
  ({'update_ratio': 0.3}, '--update_ratio=0.3', 'a whole number or a fraction 1/k'),
  ({'update_ratio': 0.4, 'num_envs': 2}, '--update_ratio=0.4', 'a whole number or a fraction 1/k'),
  ({'min_replay': 0}, '--min_replay=0', 'at least 1'),
  ({'min_replay': 129, 'replay_capacity': 128}, '--min_replay=129', 'at most replay_capacity=128'),
  ({'replay_capacity': 1, 'min_replay': 1}, '--replay_capacity=1', 'at least 2'),
  (
    {'replay_capacity': 27, 'min_replay': 20, 'n_step': 5, 'num_envs': 4},
    '--replay_capacity=27',
    'at least num_envs * (n_step + frame_stack + 1) = 28',
  ),
  (
    {'replay_capacity': 39, 'min_replay': 20, 'n_step': 5, 'num_envs': 4, 'frame_stack': 4},
    '--replay_capacity=39',
    'at least num_envs * (n_step + frame_stack + 1) = 40',
  ),
  ({'frame_stack': 0}, '--frame_stack=0', 'at least 1'),
  ({'frame_padding': 'last'}, '--frame_padding=last', 'one of blank, first'),
  ({'update_indices': '4097'}, '--update_indices=4097', 'at most 4096'),
  ({'update_indices': '\u0663'}, '--update_indices=\u0663', 'a whole number'),
  ({'prng_impl': 'mt19937'}, '--prng_impl=mt19937', 'one of threefry2x32'),
]


@pytest.mark.parametrize('changes, flag, allowed', INVALID, ids=lambda x: x if isinstance(x, str) else None)
def test_each_invalid_value_is_one_line_with_flag_value_and_what_is_allowed(changes, flag, allowed):
  with pytest.raises(ConfigError) as error:
    validate(dataclasses.replace(HyperAgentConfig(), **changes))
  text = str(error.value)
  assert flag in text and allowed in text and '\n' not in text


@pytest.mark.parametrize('name', [name for name, f in FIELDS.items() if not isinstance(f.default, str | bool)])
def test_every_number_has_a_highest_value_and_more_is_refused_before_anything_is_made(name):
  f = FIELDS[name]
  for value in (1e9, 1e12, 1e20, 1e300):
    value = int(value) if isinstance(f.default, int) else (int(value),) if isinstance(f.default, tuple) else value
    if (name in ('max_abs_reward', 'max_grad_norm') and value <= 1e30) or (name == 'target_period' and value == 10**9):
      continue
    with pytest.raises(ConfigError, match=rf'--{name}=.*: must be at most \d'):
      validate(dataclasses.replace(HyperAgentConfig(), **{name: value}))


def test_every_field_that_can_be_invalid_has_a_case_above():
  checked = {name for changes, *_ in INVALID for name in changes}
  booleans = {name for name, f in FIELDS.items() if isinstance(f.default, bool)}
  assert checked | booleans == set(FIELDS)


@pytest.mark.parametrize('value', [20, 1])
def test_a_number_of_update_indices_may_be_given_as_a_number_or_is_refused_in_one_line(value):
  """A program, unlike a flag, writes update_indices=20."""
  config = HyperAgentConfig(update_indices=value)
  try:
    validate(config)
  except ConfigError as error:
    assert f'--update_indices={value}' in str(error)
  else:
    assert config.num_update_indices == value


@pytest.mark.parametrize('changes', [{'index_dim': 2.5}, {'batch_size': 8.0}, {'hidden_sizes': 64}, {'index_dim': '4'}])
def test_a_value_of_the_wrong_kind_is_refused(changes):
  with pytest.raises(ConfigError, match=f'--{next(iter(changes))}='):
    validate(dataclasses.replace(HyperAgentConfig(), **changes))


def test_too_little_random_experience_for_one_n_step_transition_is_refused():
  """With fewer than n interactions replay is empty when learning starts."""
  with pytest.raises(ConfigError, match='--min_replay=4'):
    validate(HyperAgentConfig(min_replay=4, n_step=5))


@pytest.mark.parametrize(
  'update_ratio, num_envs, updates, period',
  [(1.0, 1, 1, 1), (4.0, 1, 4, 1), (0.25, 1, 0, 4), (0.5, 4, 2, 1), (0.125, 4, 0, 2)],
)
def test_update_ratio_counts_updates_per_interaction(update_ratio, num_envs, updates, period):
  config = HyperAgentConfig(update_ratio=update_ratio, num_envs=num_envs)
  assert config.updates_per_step == updates
  assert config.steps_per_update == period


def test_num_update_indices():
  assert HyperAgentConfig().num_update_indices == 0
  assert HyperAgentConfig(update_indices='20').num_update_indices == 20


# ---------------------------------------------------------------------------------------------------------------- flags

CHANGED = HyperAgentConfig(
  torso='mlp',
  grid_size=7,
  hidden_sizes=(50, 40, 30),
  index_dim=5,
  posterior_scale=0.1,
  prior_scale=0.2,
  prior_std=0.3,
  prior_row_length=0.4,
  bias_init='glorot',
  prior_storage='replay',
  pixel_divisor=128.0,
  normalize_features=True,
  convolution_method='products',
  compute_dtype='bfloat16',
  reference_distribution='cube',
  perturbation_distribution='sparse',
  num_nonzero=2,
  unit_variance_index=True,
  update_indices='20',
  target_index='dependent',
  target_resampling='state_independent',
  target_num_indices=3,
  double_q=False,
  discount=0.5,
  n_step=3,
  sigma=1e-4,
  beta=0.01,
  mean_regularizer=True,
  gradient_penalty=0.02,
  max_abs_reward=1.5,
  act_resampling='state_dependent',
  geometric_resampling=False,
  act_num_indices=4,
  optimism='supremum',
  optimism_quantile=0.8,
  learning_rate=1e-4,
  adam_eps=1e-8,
  max_grad_norm=5.0,
  batch_size=32,
  target_period=5,
  num_envs=2,
  update_ratio=0.5,
  min_replay=2000,
  replay_capacity=500_000,
  frame_stack=4,
  frame_padding='first',
  frame_layout='windows',
  prng_impl='rbg',
)


def parse(config, *arguments, skip=()):
  values = flags.FlagValues()
  define_config_flags(config, values, skip)
  values(['program', *arguments])
  return config_from_flags(config, values)


def test_defaults_survive_flags():
  assert parse(HyperAgentConfig()) == HyperAgentConfig()
  assert parse(CHANGED) == CHANGED


def test_every_field_can_be_set_by_its_flag():
  for name, f in FIELDS.items():
    assert getattr(CHANGED, name) != f.default, name
  show = lambda v: ','.join(map(str, v)) if isinstance(v, tuple) else str(v)
  arguments = [f'--{name}={show(getattr(CHANGED, name))}' for name in FIELDS]
  parsed = parse(HyperAgentConfig(), *arguments)
  assert parsed == CHANGED
  assert {name: type(getattr(parsed, name)) for name in FIELDS} == {name: type(f.default) for name, f in FIELDS.items()}


def test_skipped_fields_have_no_flag_and_keep_their_value():
  values = flags.FlagValues()
  define_config_flags(CHANGED, values, skip=('grid_size',))
  assert 'grid_size' not in values and 'index_dim' in values
  values(['program', '--index_dim=6'])
  assert config_from_flags(CHANGED, values) == dataclasses.replace(CHANGED, index_dim=6)


def test_help_of_every_flag_describes_it_and_lists_its_choices():
  values = flags.FlagValues()
  define_config_flags(HyperAgentConfig(), values)
  for name, f in FIELDS.items():
    assert f.metadata['help'] in values[name].help
    for choice in f.metadata['choices']:
      assert choice in values[name].help


def test_a_list_flag_that_holds_no_whole_numbers_is_refused():
  with pytest.raises(ConfigError, match='--hidden_sizes=64,big: must be whole numbers'):
    parse(HyperAgentConfig(), '--hidden_sizes=64,big')


def test_dictionary_of_a_configuration_is_json_ready_and_differences_name_fields():
  old, new = (
    config_to_dict(HyperAgentConfig()),
    config_to_dict(HyperAgentConfig(index_dim=5, hidden_sizes=(8,))),
  )
  assert old['hidden_sizes'] == [64, 64] and set(old) == set(FIELDS)
  assert config_differences(old, old) == []
  assert config_differences(old, new) == ['hidden_sizes: [64, 64] -> [8]', 'index_dim: 4 -> 5']
  assert config_differences(old, {**old, 'extra': 1}) == ['extra: None -> 1']


# ------------------------------------------------------------------------------------------------------ nothing is idle


def attributes_read(folder):
  """Names of all attributes read in a folder's Python files, but for the configuration's own."""
  names = set()
  for path in pathlib.Path(folder).rglob('*.py'):
    if path.name == 'config.py':
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        names.add(node.attr)
  return names


@pytest.mark.parametrize('name', FIELDS)
def test_every_field_is_read_outside_the_configuration(name):
  package = pathlib.Path(hyperagent_jax.__file__).parent
  # The binaries read what the library leaves to its driver, such as the size of replay.
  read = attributes_read(package) | attributes_read(package.parent / 'experiments')
  # These are read through properties of the configuration.
  through = {'update_indices': {'num_update_indices'}, 'update_ratio': {'updates_per_step', 'steps_per_update'}}
  assert through.get(name, {name}) <= read


def test_best_preset_for_deep_sea_is_valid_and_keeps_the_treasures_value_at_the_start():
  for size in (5, 20, 50, 100, 200):
    best = presets.deep_sea_best(size)
    config_lib.validate(best)
    assert 0.03 < best.discount**size < 0.1
    changed = config_differences(config_to_dict(presets.deep_sea(size)), config_to_dict(best))
    assert {text.split(':')[0] for text in changed} == {
      *('act_num_indices', 'target_num_indices', 'update_ratio', 'target_period', 'double_q', 'discount'),
      'geometric_resampling',
    }


def test_presets_for_atari_have_the_numbers_of_table_5():
  expected = {
    'torso': 'nature',
    'hidden_sizes': (256,),
    'batch_size': 32,
    'update_indices': 'exact',
    'index_dim': 4,
    'discount': 0.99,
    'n_step': 5,
    'learning_rate': 1e-4,
    'adam_eps': 1.5e-4,
    'max_grad_norm': 10.0,
    'sigma': 0.01,
    'beta': 0.01,
    'mean_regularizer': False,
    'target_period': 5,
    'update_ratio': 1.0,
    'min_replay': 2_000,
    'replay_capacity': 500_000,
    'pixel_divisor': 255.0,
    'posterior_scale': 0.1,
    'prior_scale': 0.1,
    'prior_std': 0.1,
    'bias_init': 'glorot',
    'normalize_features': True,
    'gradient_penalty': 0.0,
    'frame_stack': 4,
    'max_abs_reward': 1.0,
    'double_q': True,
    'target_index': 'independent',
    'target_resampling': 'state_dependent',
    'reference_distribution': 'sphere',
    'perturbation_distribution': 'sphere',
    'geometric_resampling': True,
  }
  published = {
    'update_indices': '20',
    'sigma': 0.0188,
    'mean_regularizer': True,
    'replay_capacity': 100_000,
    'pixel_divisor': 1.0,
    'gradient_penalty': 0.01,
  }
  fast = {
    'torso': 'data_efficient',
    'frame_layout': 'windows',
    'learning_rate': 1e-3,
    'n_step': 10,
    'replay_capacity': 100_000,
  }
  for config, numbers in (
    (presets.atari(), expected),
    (presets.atari_published_code(), expected | published),
    (presets.fast_cpu(), expected | fast),
  ):
    assert {name: getattr(config, name) for name in numbers} == numbers
