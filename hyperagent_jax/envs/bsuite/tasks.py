"""A bsuite id as a task: its environment with the log that bsuite would keep, and its settings."""

import difflib
import functools
import gzip
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from bsuite import sweep

from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.envs.bsuite import control
from hyperagent_jax.envs.bsuite.dynamics import (
  Dynamics,
  Step,
  bandit,
  bandit_rewards,
  catch,
  deep_sea_dynamics,
  discounting_chain,
  discounting_rewards,
  memory_chain,
  mnist,
  umbrella_chain,
)
from hyperagent_jax.envs.history import without_history
from hyperagent_jax.types import FIRST, LAST, MID, Array, Environment, PRNGKey, TimeStep, time_step

MNIST_DIR = '/tmp/mnist'  # where bsuite keeps it
_MNIST_FILES = ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz')
# The columns that the logs of all experiments have.
LOG_COLUMNS = ('steps', 'episode', 'total_return', 'episode_len', 'episode_return')
_RATIOS = (1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


class BsuiteParams(NamedTuple):
  """What may differ between ids that share a program."""

  setting: Any  # the dynamics' params
  noise_scale: Array  # [] standard deviation of the noise on every reward
  reward_scale: Array  # [] by which every reward is multiplied


class BsuiteTask(NamedTuple):
  """One bsuite id."""

  bsuite_id: str
  environment: Environment
  params: BsuiteParams
  num_episodes: int  # of a whole experiment
  # Ids with the same one share a program: their params can be stacked, and any one's environment serves all.
  batch_key: tuple[Any, ...]
  log_columns: tuple[str, ...]  # of `BsuiteState.log`


class Log(NamedTuple):
  """bsuite's log: totals so far, and a row of them for each of certain episodes, as bsuite's own wrapper writes.

  What an episode adds to a total is summed up first: added one by one, small rewards would be lost in float32.
  """

  steps: Array  # [] int32, of all episodes
  episode: Array  # [] int32 episodes finished
  total_return: Array  # [] of the episodes finished
  totals: dict[str, Array]  # of what bsuite scores, of the episodes finished
  episode_len: Array  # [] int32
  episode_return: Array  # []
  episode_totals: dict[str, Array]
  raw_return: Array  # [] of the episode, before noise and scale
  best_episode: Array  # [] greatest raw return
  rows: Array  # [R, columns] float32
  num_rows: Array  # [] int32


class BsuiteState(NamedTuple):
  """An environment's state."""

  inner: Any  # the dynamics'
  over: Array  # [] bool: whether the latest step was LAST
  log: Log | None


def log_of(env_state: Any) -> Log:
  """The log in the state of an environment, whether or not it shows a history.

  Raises:
    ValueError: if it was made without a log.
  """
  log = without_history(env_state).log
  if log is None:
    raise ValueError('this environment keeps no log; make it with log=True')
  return log


# ------------------------------------------------------------------------------------------------------------------ ids


def experiments() -> list[str]:
  """Names of the 23 experiments, such as cartpole_noise."""
  return list(dict.fromkeys(bsuite_id.split('/')[0] for bsuite_id in sweep.SWEEP))


def parse_ids(text: str) -> list[str]:
  """The ids that a word stands for.

  Args:
    text: SWEEP for all of them, a tag such as exploration, an experiment such as catch, or an id such as catch/3.

  Raises:
    ConfigError: if there is no such thing, naming near matches.
  """
  if text.lower() == 'sweep':
    return list(sweep.SWEEP)
  if text in sweep.TAGS:
    return list(sweep.TAGS[text])
  of_experiment = [i for i in sweep.SWEEP if i.split('/')[0] == text]
  if of_experiment:
    return of_experiment
  if text in sweep.SETTINGS:
    return [text]
  name, _, number = text.partition('/')
  settings = [i for i in sweep.SWEEP if i.split('/')[0] == name]
  if settings and number:
    raise ConfigError(f'--bsuite_id={text}: {name} has settings 0 to {len(settings) - 1}')
  known = ['SWEEP', *sweep.TAGS, *experiments()]
  near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  advice = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(known)}, and ids such as catch/3'
  raise ConfigError(f'--bsuite_id={text}: no such id, experiment or tag; {advice}')


# ----------------------------------------------------------------------------------------------------------------- data


def load_mnist(directory: str = MNIST_DIR) -> tuple[np.ndarray, np.ndarray]:
  """MNIST's training set from local files: images [n, 28, 28] int8, as bsuite has them, and labels [n].

  Raises:
    ConfigError: if a file is missing or is no such file.
  """
  data, flag = [], f'--mnist_dir={directory}'
  for name, magic, dtype in zip(_MNIST_FILES, (2051, 2049), (np.int8, np.uint8), strict=True):
    path = pathlib.Path(directory) / name
    try:
      raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
      files = ' and '.join(_MNIST_FILES)
      raise ConfigError(f'{flag}: {name} is missing; put {files} there or name their folder') from None
    except (OSError, EOFError, zlib.error) as e:
      raise ConfigError(f'{flag}: {name}: {e}') from None
    num_axes = magic % 256
    start = 4 * (1 + num_axes)
    header = np.frombuffer(raw[:start], '>i4') if len(raw) >= start else np.zeros(1)
    if header[0] != magic or len(raw) != start + int(np.prod(header[1:])):
      raise ConfigError(f'{flag}: {name}: not a file of MNIST')
    data.append(np.frombuffer(raw, dtype, offset=start).reshape(tuple(header[1:])))
  images, labels = data
  if len(images) != len(labels):
    raise ConfigError(f'{flag}: {len(images)} images but {len(labels)} labels')
  return images, labels


# ------------------------------------------------------------------------------------------------------------ dynamics


@functools.lru_cache(maxsize=1)
def _mnist_dynamics(directory: str) -> Dynamics:
  """MNIST's dynamics, one for the sixty ids that share its images."""
  return mnist(*load_mnist(directory))


def _make_dynamics(name: str, setting: dict[str, Any], mnist_dir: str) -> tuple[Dynamics, Any, tuple[Any, ...]]:
  """An experiment's dynamics, their params and what tells programs of this experiment apart."""
  integer = lambda x: jnp.int32(x)
  match name:
    case 'bandit':
      return bandit(), jnp.asarray(bandit_rewards(setting['mapping_seed'])), ()
    case 'catch':
      return catch(), (), ()
    case 'cartpole':
      return control.cartpole(), (), ()
    case 'cartpole_swingup':
      thresholds = (jnp.float32(setting[k]) for k in ('height_threshold', 'x_reward_threshold'))
      return control.cartpole_swingup(), control.SwingupParams(*thresholds), ()
    case 'mountain_car':
      return control.mountain_car(), (), ()
    case 'discounting_chain':
      rewards = discounting_rewards(setting['mapping_seed'])
      return discounting_chain(), jnp.asarray(rewards), ()
    case 'memory_len':
      return memory_chain(1), integer(setting['memory_length']), ()
    case 'memory_size':
      return memory_chain(setting['num_bits']), integer(2), (setting['num_bits'],)
    case 'umbrella_length':
      num = setting['n_distractor']
      return umbrella_chain(num), integer(setting['chain_length']), (num,)
    case 'umbrella_distract':
      num = setting['n_distractor']
      return umbrella_chain(num), integer(20), (num,)
    case 'deep_sea' | 'deep_sea_stochastic':
      size = setting['size']
      params = deep_sea.make_params(size, setting['mapping_seed'])
      return deep_sea_dynamics(size, name == 'deep_sea'), params, (size,)
    case 'mnist':
      return _mnist_dynamics(mnist_dir), (), ()
  raise AssertionError(name)


def make_bsuite(bsuite_id: str, log: bool = False, mnist_dir: str = MNIST_DIR) -> BsuiteTask:
  """The environment of an id, as `bsuite.load_from_id` constructs it.

  Args:
    bsuite_id: such as 'catch_noise/3'.
    log: whether the environment's state keeps what bsuite would log.
    mnist_dir: folder of MNIST's files, for the mnist experiments.

  Raises:
    ConfigError: if it is not one id, or MNIST's files are missing.
  """
  if bsuite_id not in sweep.SETTINGS:
    ids = parse_ids(bsuite_id)  # raises if it stands for nothing
    raise ConfigError(f'--bsuite_id={bsuite_id}: stands for {len(ids)} ids; must be one, such as {ids[0]}')
  experiment, setting = bsuite_id.split('/')[0], sweep.SETTINGS[bsuite_id]
  base = experiment.removesuffix('_noise').removesuffix('_scale')
  dynamics, params, static = _make_dynamics(base, setting, mnist_dir)
  num_episodes = sweep.EPISODES[bsuite_id]
  columns = log_columns(dynamics)
  environment = make_environment(
    experiment, dynamics, noisy='noise_scale' in setting, log_episodes=log_schedule(num_episodes) if log else None
  )
  scales = (jnp.float32(setting.get('noise_scale', 0.0)), jnp.float32(setting.get('reward_scale', 1.0)))
  return BsuiteTask(bsuite_id, environment, BsuiteParams(params, *scales), num_episodes, (experiment, *static), columns)


def stack_params(tasks: Sequence[BsuiteTask]) -> BsuiteParams:
  """The params of tasks that share a program, [S, ...].

  Raises:
    ValueError: if they do not.
  """
  if len({task.batch_key for task in tasks}) != 1:
    raise ValueError(f'{", ".join(task.bsuite_id for task in tasks)}: do not share a program')
  return jax.tree.map(lambda *x: jnp.stack(x), *(task.params for task in tasks))


# ------------------------------------------------------------------------------------------------------------------ log


def log_schedule(num_episodes: int) -> np.ndarray:
  """The episodes after which bsuite logs: 1, 1.2, 1.4, 1.7, 2, 2.5, 3 ... 9 times powers of ten, whole ones only."""
  powers = 10.0 ** np.arange(np.ceil(np.log10(num_episodes)) + 1)
  wanted = np.outer(powers, _RATIOS).ravel()
  return np.unique([int(x) for x in wanted if x == int(x) and x <= num_episodes])


def log_columns(dynamics: Dynamics) -> tuple[str, ...]:
  """The columns of the log of an environment with these dynamics."""
  return (*LOG_COLUMNS, *dynamics.totals, *(['best_episode'] if dynamics.counts_best else []))


def _empty_log(dynamics: Dynamics, num_rows: int) -> Log:
  count, total = lambda: jnp.zeros((), jnp.int32), lambda: jnp.zeros(())
  totals = lambda: {name: total() for name in dynamics.totals}
  rows = jnp.zeros((num_rows, len(log_columns(dynamics))))
  return Log(count(), count(), total(), totals(), count(), total(), totals(), total(), total(), rows, count())


def _counted(log: Log, dynamics: Dynamics, episodes: Array, reward: Array, step: Step) -> Log:
  """The log after a step: `reward` is what the agent sees, `step.reward` what it was before noise and scale."""
  last, at_end = step.last, lambda new, old: jnp.where(step.last, new, old)
  log = log._replace(
    steps=log.steps + 1,
    episode=log.episode + last,
    episode_len=log.episode_len + 1,
    episode_return=log.episode_return + reward,
    episode_totals={name: log.episode_totals[name] + step.totals[name] for name in dynamics.totals},
    raw_return=log.raw_return + step.reward,
  )
  log = log._replace(
    total_return=at_end(log.total_return + log.episode_return, log.total_return),
    totals={name: at_end(log.totals[name] + log.episode_totals[name], log.totals[name]) for name in dynamics.totals},
    best_episode=at_end(jnp.maximum(log.best_episode, log.raw_return), log.best_episode),
  )
  values = [getattr(log, name) for name in LOG_COLUMNS] + [log.totals[name] for name in dynamics.totals]
  values += [log.best_episode] if dynamics.counts_best else []
  row = jnp.stack([jnp.asarray(x, jnp.float32) for x in values])
  next_episode = episodes[jnp.minimum(log.num_rows, len(episodes) - 1)]
  due = last & (log.num_rows < len(episodes)) & (log.episode == next_episode)
  where = jnp.where(due, log.num_rows, len(episodes))  # out of bounds: not written at all
  fresh = lambda tree: jax.tree.map(lambda x: at_end(jnp.zeros_like(x), x), tree)
  return log._replace(
    rows=log.rows.at[where].set(row, mode='drop'),
    num_rows=log.num_rows + due,
    episode_len=fresh(log.episode_len),
    episode_return=fresh(log.episode_return),
    episode_totals=fresh(log.episode_totals),
    raw_return=fresh(log.raw_return),
  )


# ---------------------------------------------------------------------------------------------------------- environment


def draw_noise(key: PRNGKey) -> tuple[PRNGKey, Array]:
  """A key for the dynamics, and a reward's standard normal noise."""
  key, key_noise = jax.random.split(key)
  return key, jax.random.normal(key_noise)


def make_environment(
  name: str, dynamics: Dynamics, noisy: bool = False, log_episodes: np.ndarray | None = None
) -> Environment:
  """Dynamics as an `Environment` with `BsuiteParams`: episodes, noisy and scaled rewards, and bsuite's log.

  Args:
    name: of the environment.
    dynamics: what a step does.
    noisy: whether rewards have noise; if not, noise_scale is not read.
    log_episodes: the episodes after which a row of the log is written; None for no log.
  """

  def reset(params: BsuiteParams, key: PRNGKey) -> tuple[BsuiteState, TimeStep]:
    inner = dynamics.reset(params.setting, dynamics.draw_reset(key))
    log = None if log_episodes is None else _empty_log(dynamics, len(log_episodes))
    observation = dynamics.observe(params.setting, inner)
    return BsuiteState(inner, jnp.array(False), log), time_step(FIRST, 0.0, 1.0, observation)

  def step(params: BsuiteParams, state: BsuiteState, action: Array, key: PRNGKey) -> tuple[BsuiteState, TimeStep]:
    # A step either begins an episode or goes on with one: both can use the same random numbers.
    key, noise = draw_noise(key) if noisy else (key, 0.0)
    begun = dynamics.reset(params.setting, dynamics.draw_reset(key))
    moved = dynamics.step(params.setting, state.inner, action, dynamics.draw_step(key))
    reward = (moved.reward + params.noise_scale * noise) * params.reward_scale
    choose = lambda new, old: jax.tree.map(lambda x, y: jnp.where(state.over, x, y), new, old)
    inner, log = choose(begun, moved.state), state.log
    if log is not None:
      log = choose(log, _counted(log, dynamics, jnp.asarray(log_episodes), reward, moved))
    last = moved.last & ~state.over
    step_type = jnp.where(state.over, FIRST, jnp.where(last, LAST, MID))
    observation = dynamics.observe(params.setting, inner)
    timestep = time_step(step_type, jnp.where(state.over, 0.0, reward), jnp.where(last, 0.0, 1.0), observation)
    return BsuiteState(inner, last, log), timestep

  return Environment(name, reset, step, dynamics.num_actions, dynamics.observation_spec, episode_length=None)
