"""Settings of bsuite's binary, and which ids they stand for."""

import dataclasses
import zlib
from collections.abc import Sequence

from absl import flags

from experiments.common import agents
from experiments.common.console import warn
from experiments.common.runs import OutputConfig
from experiments.common.settings import config_from_flags, define_config_flags, define_integer
from hyperagent_jax import config, presets
from hyperagent_jax.baselines import SYSTEMS, RivalConfig
from hyperagent_jax.config import ConfigError, HyperAgentConfig, field
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.interaction import LAST_SEED

# What the environment fixes, and what is for screens only.
_NOT_FLAGS = (
  *('torso', 'grid_size', 'prior_storage', 'num_envs', 'max_abs_reward', 'frame_padding'),
  *('pixel_divisor', 'normalize_features', 'convolution_method', 'compute_dtype', 'frame_layout'),
)


@dataclasses.dataclass(frozen=True)
class BsuiteConfig:
  """What is run."""

  agent: str = field('hyperagent', 'Which agent.', choices=tuple(SYSTEMS))
  seed: int = field(
    0,
    "Of all randomness but that of bsuite's own environments; every id makes its own of it.",
    low=0,
    high=LAST_SEED,
  )
  num_episodes: int = field(0, "Episodes of each id; 0: bsuite's own number, which scores are for.", low=0, high=10**6)
  checkpoint_minutes: float = field(10.0, 'Minutes between checkpoints of what is under way.', low=0.001, high=1e6)
  mnist_dir: str = field(envs.MNIST_DIR, "Folder of MNIST's two files; without them its experiments are skipped.")


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  agents.define_flags(presets.bsuite(), flag_values, skip=_NOT_FLAGS)
  define_config_flags(BsuiteConfig(), flag_values)
  define_config_flags(OutputConfig(), flag_values, skip=('tensorboard',))
  flags.DEFINE_list('bsuite_id', ['SWEEP'], 'Ids, experiments, tags, or SWEEP for all.', flag_values=flag_values)
  text = (
    'Of experiments, tags and SWEEP only ids whose numbers are multiples of it: 4 is a quarter that covers the whole.'
  )
  define_integer('every', 1, text, flag_values)
  text = "'fused': in XLA; 'host': bsuite's own environments, one id after the other, of which none is checkpointed."
  flags.DEFINE_enum('driver', 'fused', ['fused', 'host'], text, flag_values=flag_values)


def ids_of(words: Sequence[str], every: int = 1) -> list[str]:
  """The ids that a list of words stands for, each once, in bsuite's order.

  Args:
    words: ids, experiments, tags, or SWEEP.
    every: k, of what is not named as an id only the ids 0, k, 2 k ... of each experiment.

  Raises:
    ConfigError: if a word names nothing, or k is below 1.
  """
  if not 1 <= every <= 1_000:
    raise ConfigError(f'--every={every}: must be from 1 to 1000')
  taken = lambda word, bsuite_id: '/' in word or int(bsuite_id.split('/')[1]) % every == 0
  chosen = {bsuite_id for word in words for bsuite_id in envs.parse_ids(word) if taken(word, bsuite_id)}
  if not chosen:
    raise ConfigError('--bsuite_id=: must name an id, an experiment, a tag, or SWEEP')
  return [bsuite_id for bsuite_id in envs.parse_ids('SWEEP') if bsuite_id in chosen]


def without_mnist_if_missing(ids: Sequence[str], directory: str) -> list[str]:
  """The ids that can be run: those of mnist are left out, and named, where its data are missing.

  Raises:
    ConfigError: if nothing is left.
  """
  of_mnist = [bsuite_id for bsuite_id in ids if bsuite_id.startswith('mnist')]
  if not of_mnist:
    return list(ids)
  try:
    envs.load_mnist(directory)
    return list(ids)
  except ConfigError as error:
    left = [bsuite_id for bsuite_id in ids if bsuite_id not in of_mnist]
    if not left:
      raise
    warn(f'{error}; skipped: {", ".join(dict.fromkeys(i.split("/")[0] for i in of_mnist))}')
    return left


def rival_preset(name: str) -> RivalConfig:
  """A rival's settings on bsuite: its own of DeepSea, but for what HyperAgent changes from there to here.

  It changes what had HyperAgent's value there. Of a random action epsilon-greedy agents take a constant 0.05, as
  bsuite's own DQN: training is scored, and DeepSea's decay would outlast all of bandit.
  """
  rival, before, after = SYSTEMS[name].deep_sea(20), presets.deep_sea(20), presets.bsuite()

  def follows(name: str) -> bool:
    """HyperAgent's value is another on bsuite than on DeepSea, where the rival has HyperAgent's."""
    return getattr(after, name) != getattr(before, name) and getattr(rival, name) == getattr(before, name)

  changed = {name: value for name, value in vars(after).items() if follows(name)}
  return dataclasses.replace(rival, **changed, epsilon_final=0.05, epsilon_steps=1)


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> tuple[HyperAgentConfig, BsuiteConfig, OutputConfig]:
  """All flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  run, output = (config_from_flags(c, flag_values) for c in (BsuiteConfig(), OutputConfig()))
  for settings in (run, output):
    config.validate_fields(settings)
  preset = presets.bsuite() if run.agent == 'hyperagent' else rival_preset(run.agent)
  return agents.read_settings(run.agent, preset, flag_values), run, output


def shows_cells(task: envs.BsuiteTask) -> bool:
  """Whether observations are numbers of DeepSea's cells."""
  return task.batch_key[0].startswith('deep_sea')


def settings_for(task: envs.BsuiteTask, agent: HyperAgentConfig) -> HyperAgentConfig:
  """The agent's settings on an id: DeepSea's cells hide nothing, and a torso looks them up in place of the MLP."""
  if not shows_cells(task):
    return agent
  return dataclasses.replace(agent, torso='deep_sea', grid_size=task.batch_key[1], frame_stack=1)


def seed_of(task: envs.BsuiteTask, run: BsuiteConfig) -> int:
  """The seed of an id: no two ids have the same, so that scores of experiments are independent."""
  return zlib.crc32(f'{task.bsuite_id} {run.seed}'.encode()) >> 1  # 31 bits


def num_episodes(task: envs.BsuiteTask, run: BsuiteConfig) -> int:
  """How many episodes an id is played.

  Raises:
    ConfigError: if more than bsuite's own number are asked for, which it neither logs nor scores.
  """
  if run.num_episodes > task.num_episodes:
    limit = f"must be at most {task.num_episodes}, bsuite's own number, on {task.bsuite_id}"
    raise ConfigError(f'--num_episodes={run.num_episodes}: {limit}')
  return run.num_episodes or task.num_episodes
