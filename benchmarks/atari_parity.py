"""Whether three ways to the same games agree, frame by frame, over many random steps.

    python -m benchmarks.atari_parity [--game=pong,breakout,freeway] [--num_steps=10000]

The vector environment inside a compiled program is compared with the dm_env environment (screens, rewards, discounts,
step types), and every stack that replay rebuilds with the environment's own. The first difference is exit status 1.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

import hyperagent_jax as ha
from hyperagent_jax.envs import atari
from hyperagent_jax.types import LAST, from_dm_env, tree_index

_GAMES = flags.DEFINE_list('game', ['pong', 'breakout', 'freeway'], 'Games.')
_NUM_STEPS = flags.DEFINE_integer('num_steps', 10_000, 'Random steps of each.')

_BATCH = 500


def record(game: str, num_steps: int) -> tuple[ha.TimeStep, np.ndarray, int, Any, Any]:
  """Plays at random inside a program: time steps [T + 1], actions [T], the emulator's seed, replay and its state."""
  games = atari.make_atari(game, atari.AtariConfig(), 1, 1, 1, num_groups=1)
  replay = ha.make_replay(num_steps + 10, 1, n_step=5, discount=0.99, frame_stack=4)
  keys, params = jax.random.split(jax.random.key(0), 1), tree_index(games.params, 0)
  actions = np.random.default_rng(0).integers(0, games.environment.num_actions, (num_steps, 1), np.int32)
  mark = lambda t: ha.Extras(noise=jnp.full((1, 1), t, jnp.float32))  # which time step a row is

  @jax.jit
  def play(params: Any, keys: Any, actions: Any) -> Any:
    def one(carry: Any, inputs: Any) -> Any:
      (env_state, state), (t, action) = carry, inputs
      env_state, timestep = games.environment.step(params, env_state, action, keys)
      return (env_state, replay.add(state, timestep, action, mark(t))), timestep

    env_state, first = games.environment.reset(params, keys)
    state = replay.add(replay.init(first, actions[0], mark(0)), first, actions[0], mark(0))
    numbers = jnp.arange(1, num_steps + 1)
    (_, state), rest = jax.lax.scan(one, (env_state, state), (numbers, actions))
    return state, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs])[:, 0], first, rest)

  state, timesteps = play(params, keys, actions)
  return jax.device_get(timesteps), actions[:, 0], int(atari.game_seeds(keys)[0]), replay, state


def check_plain_environment(game: str, timesteps: ha.TimeStep, actions: np.ndarray, seed: int) -> None:
  """Compares with the dm_env environment."""
  environment = atari.AtariEnvironment(game, atari.AtariConfig(), seed)
  plain = environment.reset()
  for t in range(len(actions) + 1):
    expected, found = from_dm_env(plain), tree_index(timesteps, t)
    for name, x, y in zip(ha.TimeStep._fields, expected, found, strict=True):
      if not np.array_equal(x, y):
        sys.exit(f'{game}: {name} of step {t} differs')
    if t < len(actions):
      plain = environment.step(int(actions[t]))


def check_replay(game: str, timesteps: ha.TimeStep, replay: Any, state: Any) -> int:
  """Compares both stacks of every transition that can be drawn; their number."""
  sample, num = jax.jit(replay.sample), int(replay.size(state))
  for start in range(0, num, _BATCH):
    # The last ranks of the last batch wrap around to the first, which does no harm.
    batch = jax.device_get(sample(state, jnp.arange(start, start + _BATCH, dtype=jnp.uint32)))
    for stack, extras in ((batch.o_tm1, batch.extras_tm1), (batch.o_t, batch.extras_t)):
      rows = extras.noise[:, 0].astype(int)
      same = (stack == timesteps.observation[rows]).all(axis=(1, 2, 3))
      if not same.all():
        sys.exit(f'{game}: the stack of step {rows[~same][0]} differs')
  return num


def main(argv: list[str]) -> None:
  """Checks every game."""
  del argv
  logging.set_verbosity(logging.ERROR)
  for game in _GAMES.value:
    timesteps, actions, seed, replay, state = record(game, _NUM_STEPS.value)
    check_plain_environment(game, timesteps, actions, seed)
    num = check_replay(game, timesteps, replay, state)
    ends = int(np.sum(timesteps.step_type == LAST))
    lives = int(np.sum((timesteps.discount == 0) & (timesteps.step_type != LAST)))
    print(
      f'{game}: {len(actions):,} steps, {ends} ends of games, {lives} other lives lost: the same screens, rewards, '
      f'discounts and step types; both stacks of {num:,} transitions the same',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
