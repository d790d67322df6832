"""Atari 2600 games through ale-py, stepped inside compiled programs or from Python.

`make_atari` gives environments for the runner: many games in one C++ vector environment, called from XLA on CPU and
GPU. `AtariEnvironment` is one game with the same preprocessing behind dm_env's interface, for everything else.

How it differs from the published code's wrapper, whose games begin a little differently: ale-py draws 0 to 29 no-ops
(there 1 to 30), presses FIRE for one frame at the start of a game only (there for four, and after each life lost), and
fills the stack with blank frames there (there it repeats the first one).
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from dm_env import specs

from hyperagent_jax.config import ConfigError, field
from hyperagent_jax.seeds import num_cores
from hyperagent_jax.types import FIRST, LAST, MID, Array, Environment, PRNGKey, TimeStep


@dataclasses.dataclass(frozen=True)
class AtariConfig:
  """The game and every choice of preprocessing."""

  screen_size: int = field(84, 'Side of the grey screen in pixels.', low=36, high=210)
  frame_skip: int = field(4, 'Frames for which an action is repeated.', low=1, high=100)
  max_pool: bool = field(True, 'Take the brighter of the last two frames, against flicker.')
  noop_max: int = field(30, 'A game starts after 0 to one less than so many no-ops.', low=1, high=1_000)
  fire_reset: bool = field(True, 'Press FIRE at the start of games that wait for it.')
  sticky_actions: float = field(
    0.0, "Probability that the last action is repeated; 0.25 is ALE's advice.", low=0.0, high=1.0
  )
  full_action_space: bool = field(False, 'All 18 actions in every game.')
  max_frames: int = field(108_000, 'Frames after which a game is truncated.', low=100, high=10**8)
  life_loss_discount: float = field(
    0.0, 'Discount of a step that loses a life, in training; at 0 the acting index is redrawn too.', low=0.0, high=1.0
  )
  num_threads: int = field(0, 'Threads that step games; 0: as many as there are cores.', low=0, high=1_024)


class AtariParams(NamedTuple):
  """Which games a seed plays: addresses of vector environments, valid in this process only."""

  training: Array  # [8] uint8
  evaluation: Array  # [8] uint8


class AtariState(NamedTuple):
  """What the program keeps; the games themselves live in the vector environment."""

  handle: Array  # [8] uint8, handed on from call to call so that calls stay in order
  lives: Array  # [E] int32
  over: Array  # [E] bool: whether the latest step was LAST


class Atari(NamedTuple):
  """Environments of all seeds and their parameters."""

  environment: Environment  # E games per seed
  eval_environment: Environment  # a game per evaluation episode and seed
  params: AtariParams  # [S, ...]


def all_games() -> list[str]:
  """Names of the games that ale-py has, such as ms_pacman."""
  return sorted(roms.get_all_rom_ids())


def check_game(name: str) -> str:
  """The name, if there is such a game.

  Raises:
    ConfigError: naming the right spelling or near matches.
  """
  games = all_games()
  if name in games:
    return name
  bare = re.sub(r'^ALE/|(NoFrameskip|Deterministic)?(-(ram-)?v\d+)?$', '', name)
  snake = re.sub(r'(?<=[a-z0-9])(?=[A-Z])|[\s-]+', '_', bare).lower()
  near = [snake] if snake in games else difflib.get_close_matches(snake, games, n=3, cutoff=0.5)
  advice = f'did you mean {", ".join(near)}?' if near else f'there are {", ".join(games)}'
  raise ConfigError(f'--game={name}: not a game of ale-py; {advice}')


def vector_options(config: AtariConfig, frame_stack: int) -> dict[str, Any]:
  """Every option of `AtariVectorEnv` that bears on the games.

  Its own `episodic_life` stays off: that would reset the game when a life is lost. Rewards come unclipped.
  """
  return {
    'stack_num': frame_stack,
    'img_height': config.screen_size,
    'img_width': config.screen_size,
    'grayscale': True,
    'frameskip': config.frame_skip,
    'maxpool': config.max_pool,
    'noop_max': config.noop_max,
    'use_fire_reset': config.fire_reset,
    'repeat_action_probability': config.sticky_actions,
    'full_action_space': config.full_action_space,
    'max_num_frames_per_episode': config.max_frames,
    'episodic_life': False,
    'life_loss_info': False,
    'reward_clipping': False,
    'autoreset_mode': 'NextStep',
  }


def num_actions_of(game: str, config: AtariConfig) -> int:
  """Actions of a game."""
  return num_actions_in(AtariVectorEnv(game, 1, num_threads=1, **vector_options(config, 1)))


def num_actions_in(games: AtariVectorEnv) -> int:
  """Actions of one of these games."""
  space: Any = games.single_action_space  # Gymnasium's Discrete
  return int(space.n)


def interpret(
  xp: Any,
  over: Any,
  lives_tm1: Any,
  lives: Any,
  reward: Any,
  terminated: Any,
  truncated: Any,
  life_loss_discount: float,
) -> tuple[Any, Any, Any]:
  """Step type, reward and discount of a vector environment's step, in arrays of `xp`, which is numpy or jax.numpy.

  The step after the end of a game ignored its action and returned the next game's first screen. A lost life ends
  nothing: the step's discount is what says that it happened. Truncation keeps the discount.
  """
  step_type = xp.where(over, FIRST, xp.where(terminated | truncated, LAST, MID))
  discount = xp.where(lives < lives_tm1, life_loss_discount, 1.0)
  discount = xp.where(over, 1.0, xp.where(terminated, 0.0, discount))
  return step_type.astype(np.int32), xp.where(over, 0, reward).astype(np.float32), discount.astype(np.float32)


class _Games:
  """Vector environments of one shape and the functions that call them from XLA."""

  def __init__(
    self, game: str, num_groups: int, games_per_seed: int, group_size: int, num_threads: int, options: dict[str, Any]
  ):
    make = lambda: AtariVectorEnv(game, group_size, num_threads=num_threads, **options)
    self.owners = [make() for _ in range(num_groups)]  # whose games live as long as they do
    self._games_per_seed, self._group_size = games_per_seed, group_size
    _, self._xla_reset, self._xla_step = self.owners[0].xla()  # the handle says whose games
    # Handle [8], seeds [E] -> handle, screens [E, F, h, w], lives [E].
    self.reset = self._of_one_seed(self._reset)
    # Handle, actions [E] -> handle, screens, rewards [E], terminated [E], truncated [E], lives.
    self.step = self._of_one_seed(self._step)

  def handles(self, num_seeds: int) -> np.ndarray:
    """The address of every seed's games, [S, 8]; the seeds of a group share theirs."""
    each = np.stack([np.frombuffer(owner.ale.handle(), np.uint8) for owner in self.owners])
    return np.repeat(each, num_seeds // len(self.owners), axis=0)

  def _reset(self, handle: Array, seeds: Array) -> tuple[Array, ...]:
    handle, (screens, info) = self._xla_reset(handle, seeds)
    return handle, screens, info['lives']

  def _step(self, handle: Array, action: Array) -> tuple[Array, ...]:
    handle, (screens, reward, terminated, truncated, info) = self._xla_step(handle, action)
    return handle, screens, reward, terminated, truncated, info['lives']

  def _of_one_seed(self, call: Callable[[Array, Array], tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """A function of one seed's games that under vmap over seeds becomes one call for all games of the group.

    The emulators keep their state outside of the program, so that a call must never be repeated for each seed.
    """

    def wrong(num: int) -> ValueError:
      return ValueError(f'{num} games are stepped at once, but these were made in groups of {self._group_size}')

    def alone(handle: Array, per_game: Array) -> tuple[Array, ...]:
      num = per_game.shape[0]
      if num == self._group_size:
        return call(handle, per_game)
      if num != self._games_per_seed:
        raise wrong(num)

      # custom_vmap traces this even where only the call for all seeds is ever made. Were it made after all, anything
      # but an error would be wrong.
      def refuse() -> None:
        raise wrong(num)

      whole = jax.ShapeDtypeStruct((self._group_size,), per_game.dtype)
      first, *rest = jax.eval_shape(call, handle, whole)
      return jax.pure_callback(refuse, (first, *(jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype) for x in rest)))

    def of_all(num_seeds: int, in_batched: Sequence[bool], handle: Array, per_game: Array) -> Any:
      if not in_batched[1]:
        per_game = jnp.broadcast_to(per_game, (num_seeds, *per_game.shape))
      if per_game.size != self._group_size:
        raise wrong(per_game.size)
      handle, *rest = call(handle[0] if in_batched[0] else handle, per_game.reshape(-1))
      rest = [x.reshape(num_seeds, -1, *x.shape[1:]) for x in rest]
      out = (jnp.broadcast_to(handle, (num_seeds, *handle.shape)), *rest)
      return out, (True,) * len(out)

    of_one_seed = jax.custom_batching.custom_vmap(alone)
    of_one_seed.def_vmap(of_all)
    return of_one_seed


def game_seeds(keys: PRNGKey) -> Array:
  """The emulator's seed of each key, [E] int32."""
  return jax.vmap(lambda key: (jax.random.bits(key) >> 1).astype(jnp.int32))(keys)


def _make_environment(
  name: str, games: _Games, num_envs: int, config: AtariConfig, frame_stack: int, training: bool
) -> Environment:
  life_loss_discount = config.life_loss_discount if training else 1.0

  def reset(params: AtariParams, keys: PRNGKey) -> tuple[AtariState, TimeStep]:
    handle = params.training if training else params.evaluation
    handle, screens, lives = games.reset(handle, game_seeds(keys))
    step_type, zeros, over = jnp.full((num_envs,), FIRST), jnp.zeros((num_envs,)), jnp.zeros((num_envs,), bool)
    return AtariState(handle, lives, over), TimeStep(step_type, zeros, jnp.ones((num_envs,)), screens)

  def step(params: AtariParams, state: AtariState, action: Array, keys: PRNGKey) -> tuple[AtariState, TimeStep]:
    del params, keys  # the emulator has its own
    handle, screens, reward, terminated, truncated, lives = games.step(state.handle, action)
    parts = interpret(jnp, state.over, state.lives, lives, reward, terminated, truncated, life_loss_discount)
    return AtariState(handle, lives, parts[0] == LAST), TimeStep(*parts, screens)

  return Environment(
    name,
    reset,
    step,
    num_actions=num_actions_in(games.owners[0]),
    observation_spec=_observation_spec(config, frame_stack),
    episode_length=None,
    num_envs=num_envs,
    resumable=False,
  )


def _observation_spec(config: AtariConfig, frame_stack: int) -> specs.BoundedArray:
  shape = (frame_stack, config.screen_size, config.screen_size)
  return specs.BoundedArray(shape, np.uint8, 0, 255, name='observation')


def make_atari(
  game: str,
  config: AtariConfig,
  num_seeds: int,
  num_envs: int,
  num_eval_episodes: int,
  num_groups: int,
  frame_stack: int = 4,
) -> Atari:
  """A game for the runner, which steps it inside compiled programs.

  Construction takes about a tenth of a second a game. In evaluation a life loss changes nothing.

  Args:
    game: such as 'ms_pacman'.
    config: preprocessing.
    num_seeds: S.
    num_envs: E, games per seed.
    num_eval_episodes: games per seed of an evaluation.
    num_groups: how many programs step games on their own: S where the runner maps seeds, as many as it uses devices
      where it vmaps them. Divides S.
    frame_stack: frames of an observation.

  Raises:
    ConfigError: if there is no such game.
    ValueError: if num_groups does not divide num_seeds.
  """
  check_game(game)
  if num_seeds % num_groups:
    raise ValueError(f'num_groups={num_groups}: must divide num_seeds={num_seeds}')
  per_group = num_seeds // num_groups
  options = vector_options(config, frame_stack)

  def make(games_per_seed: int, training: bool) -> tuple[_Games, Environment]:
    size = games_per_seed * per_group
    threads = config.num_threads or max(1, min(size, num_cores() // num_groups))
    games = _Games(game, num_groups, games_per_seed, size, threads, options)
    return games, _make_environment(f'atari/{game}', games, games_per_seed, config, frame_stack, training)

  training, environment = make(num_envs, training=True)
  evaluation, eval_environment = make(num_eval_episodes, training=False)
  params = AtariParams(jnp.asarray(training.handles(num_seeds)), jnp.asarray(evaluation.handles(num_seeds)))
  return Atari(environment, eval_environment, params)


class AtariEnvironment(dm_env.Environment):
  """One game behind dm_env's interface, with the runner's preprocessing; for the host driver, and so for TPU hosts."""

  def __init__(self, game: str, config: AtariConfig, seed: int, frame_stack: int = 4, training: bool = True):
    """Starts the emulator.

    Args:
      game: such as 'ms_pacman'.
      config: preprocessing.
      seed: of the emulator, in [0, 2^31); the same as in the vector environment gives the same games.
      frame_stack: frames of an observation.
      training: whether a lost life shows in the discount.

    Raises:
      ConfigError: if there is no such game.
    """
    self._games = AtariVectorEnv(check_game(game), 1, num_threads=1, **vector_options(config, frame_stack))
    self._seed: np.ndarray | None = np.asarray([seed])
    self._life_loss_discount = config.life_loss_discount if training else 1.0
    self._spec = _observation_spec(config, frame_stack)
    self._lives, self._over = np.zeros(1, np.int32), np.zeros(1, bool)
    self._started = False

  def reset(self) -> dm_env.TimeStep:
    """Starts a game."""
    screens, info = self._games.reset(seed=self._seed)
    self._seed, self._started = None, True  # later games go on with the emulator's own randomness
    self._lives, self._over = info['lives'].copy(), np.zeros(1, bool)
    return dm_env.restart(screens[0].copy())

  def step(self, action: int) -> dm_env.TimeStep:
    """Takes a step; the first call, and one after a LAST step, start a game and ignore the action."""
    if not self._started:
      return self.reset()
    if not 0 <= action < self.action_spec().num_values:
      raise ValueError(f'action={action}: must be in [0, {self.action_spec().num_values})')
    screens, reward, terminated, truncated, info = self._games.step(np.asarray([action], np.int32))
    lives = info['lives'].copy()
    step_type, reward, discount = (
      x[0]
      for x in interpret(np, self._over, self._lives, lives, reward, terminated, truncated, self._life_loss_discount)
    )
    self._lives, self._over = lives, np.asarray([step_type == LAST])
    screen = screens[0].copy()
    if step_type == FIRST:
      return dm_env.restart(screen)
    return dm_env.TimeStep(dm_env.StepType(step_type), float(reward), float(discount), screen)

  def observation_spec(self) -> specs.BoundedArray:
    """A stack of grey screens, oldest first."""
    return self._spec

  def action_spec(self) -> specs.DiscreteArray:
    """The game's actions."""
    return specs.DiscreteArray(num_actions_in(self._games), name='action')
