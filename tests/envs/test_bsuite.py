"""bsuite's experiments in JAX against bsuite's own, step for step: the same actions, and the same drawn values."""

import bsuite
import jax
import jax.numpy as jnp
import mnist_data
import numpy as np
import pytest
from bsuite import sweep
from bsuite.utils import datasets, wrappers

from hyperagent_jax import types
from hyperagent_jax.envs import adapters
from hyperagent_jax.envs.bsuite import control
from hyperagent_jax.envs.bsuite import dynamics as dynamics_lib
from hyperagent_jax.envs.bsuite import tasks as lib

NUM_EPISODES, MAX_STEPS = 25, 1_300
MNIST = (mnist_data.IMAGES, mnist_data.LABELS)


class Recorder:
  """A generator that remembers what it drew: (method, value)."""

  def __init__(self, seed):
    self._rng, self.drawn = np.random.RandomState(seed), []

  def __getattr__(self, name):
    def draw(*args, **kwargs):
      value = getattr(self._rng, name)(*args, **kwargs)
      self.drawn.append((name, value))
      return value

    return draw

  def take(self):
    drawn, self.drawn = self.drawn, []
    return drawn


def values(drawn):
  return [value for _, value in drawn]


def one_value(drawn, dtype):
  return dtype(values(drawn)[0] if drawn else 0)


def slip_and_noise(drawn):
  named = dict(drawn)
  return jnp.float32(named.get('rand', 1.0)), jnp.float32(named.get('randn', 0.0))


def bits(drawn, setting):
  context, query = values(drawn) or (np.zeros(setting.get('num_bits', 1)), 0)
  return jnp.asarray(context, jnp.int32), jnp.int32(query)


def coins(num):
  def convert(drawn, setting):
    distractors = setting['n_distractor']
    *drawn_coins, last = values(drawn) or [0] * num + [np.zeros(distractors)]
    return jnp.asarray((list(drawn_coins) + [0] * num)[:num], jnp.int32), jnp.asarray(last, jnp.int32)

  return convert


def cart(drawn, _):
  return jnp.asarray(values(drawn) or [0.0] * 4, jnp.float32)


NOTHING = lambda drawn, setting: ()
# Experiment -> what its generator drew, as the draws of our reset and of our step.
DRAWS = {
  'bandit': (NOTHING, NOTHING),
  'catch': (lambda d, _: one_value(d, jnp.int32), NOTHING),
  'cartpole': (cart, NOTHING),
  'cartpole_swingup': (cart, NOTHING),
  'mountain_car': (lambda d, _: one_value(d, jnp.float32), NOTHING),
  'discounting_chain': (NOTHING, NOTHING),
  'memory_len': (bits, NOTHING),
  'memory_size': (bits, NOTHING),
  'umbrella_length': (coins(2), coins(1)),
  'umbrella_distract': (coins(2), coins(1)),
  'deep_sea': (NOTHING, lambda d, _: (jnp.float32(1.0), jnp.float32(0.0))),
  'deep_sea_stochastic': (NOTHING, lambda d, _: slip_and_noise(d)),
  'mnist': (lambda d, _: one_value(d, jnp.int32), NOTHING),
}


def base_of(bsuite_id):
  return bsuite_id.split('/')[0].removesuffix('_noise').removesuffix('_scale')


class Rows:
  """Where bsuite logs to."""

  def __init__(self):
    self.rows = []

  def write(self, data):
    self.rows.append(dict(data))


class Pair:
  """bsuite's environment and ours, stepped together with the same drawn values."""

  def __init__(self, bsuite_id, monkeypatch, physics_at=None):
    monkeypatch.setattr(datasets, 'load_mnist', lambda: ((MNIST[0].astype(np.int8), MNIST[1]), None))
    monkeypatch.setattr(lib, 'load_mnist', lambda directory: (MNIST[0].astype(np.int8), MNIST[1]))
    self.id, self.setting = bsuite_id, sweep.SETTINGS[bsuite_id]
    theirs = bsuite.load_from_id(bsuite_id)
    self.raw = getattr(theirs, 'raw_env', theirs)
    self.inner_rng, self.noise_rng = Recorder(1), Recorder(2)
    if 'noise_scale' in self.setting:
      theirs._rng = self.noise_rng
    self.raw._rng = self.inner_rng
    self.rows = Rows()
    self.theirs = wrappers.Logging(theirs, self.rows)
    if base_of(bsuite_id).startswith('deep_sea'):
      self.theirs = adapters.IntegerObservations(self.theirs)
    # A key that is the draws themselves.
    monkeypatch.setattr(lib, 'draw_noise', lambda key: (key, key['noise']))
    make = lib._make_dynamics

    def injected(*args):
      dynamics, *rest = make(*args)
      return dynamics._replace(draw_reset=lambda k: k['reset'], draw_step=lambda k: k['step']), *rest

    monkeypatch.setattr(lib, '_make_dynamics', injected)
    self.task = lib.make_bsuite(bsuite_id, log=True)
    self.reset, self.step_fn = jax.jit(self.task.environment.reset), jax.jit(self.task.environment.step)
    self.physics_at = physics_at
    self.state = None

  def draws(self, first):
    drawn, noise = self.inner_rng.take(), self.noise_rng.take()
    reset, step = DRAWS[base_of(self.id)]
    made = {'reset': reset(drawn if first else [], self.setting), 'step': step([] if first else drawn, self.setting)}
    return {**made, 'noise': jnp.float32(noise[0][1] if noise else 0.0)}

  def step(self, action):
    """One time step of both, which must agree."""
    if self.state is not None and self.physics_at is not None:  # rounding must not add up
      self.state = self.state._replace(inner=self.physics_at(self.raw, self.state.inner))
    theirs = self.theirs.reset() if self.state is None else self.theirs.step(action)
    draws = self.draws(theirs.first())
    if self.state is None:
      self.state, ours = self.reset(self.task.params, draws)
    else:
      self.state, ours = self.step_fn(self.task.params, self.state, jnp.int32(action), draws)
    expected = types.from_dm_env(theirs)
    assert ours.step_type == expected.step_type
    assert ours.discount == expected.discount
    scale = max(1.0, abs(self.setting.get('reward_scale', 1.0)))
    np.testing.assert_allclose(ours.reward, expected.reward, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(ours.observation, expected.observation, rtol=1e-5, atol=2e-5)
    assert ours.observation.shape == expected.observation.shape
    return ours


def cart_state(raw, ours):
  s = raw._state
  x, x_dot, theta, theta_dot = (jnp.float32(v) for v in (s.x, s.x_dot, s.theta, s.theta_dot))
  return control.CartpoleState(x, x_dot, theta, theta_dot, ours.num_steps)


def car_state(raw, ours):
  return control.CarState(jnp.float32(raw._position), jnp.float32(raw._velocity), ours.num_steps)


def assert_same_log(pair):
  columns = pair.task.log_columns
  log = pair.state.log
  assert set(columns) == set(pair.rows.rows[0])
  assert int(log.num_rows) == len(pair.rows.rows)
  ours = np.asarray(log.rows)[: len(pair.rows.rows)]
  theirs = np.array([[row[c] for c in columns] for row in pair.rows.rows])
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


EVERY_EXPERIMENT = [f'{name}/{number}' for name in lib.experiments() for number in (0, len(lib.parse_ids(name)) - 1)]


@pytest.mark.parametrize('bsuite_id', EVERY_EXPERIMENT)
def test_every_experiment_is_bsuites_step_for_step_and_logs_the_same(bsuite_id, monkeypatch):
  physics = {'cartpole': cart_state, 'cartpole_swingup': cart_state, 'mountain_car': car_state}
  pair = Pair(bsuite_id, monkeypatch, physics.get(base_of(bsuite_id)))
  assert pair.task.environment.num_actions == pair.theirs.action_spec().num_values
  assert pair.task.environment.observation_spec.shape == pair.theirs.observation_spec().shape
  assert pair.task.environment.observation_spec.dtype == pair.theirs.observation_spec().dtype
  assert pair.task.num_episodes == sweep.EPISODES[bsuite_id]
  rng, ended = np.random.RandomState(0), 0
  for _ in range(MAX_STEPS):
    timestep = pair.step(rng.randint(pair.task.environment.num_actions))
    ended += int(timestep.last())
    if ended == NUM_EPISODES:
      break
  assert ended >= 1
  assert_same_log(pair)


@pytest.mark.parametrize(
  'bsuite_id, steps', [('cartpole/0', 60), ('cartpole_swingup/10', 300), ('mountain_car/0', 999)]
)
def test_physics_left_alone_stays_with_bsuites(bsuite_id, steps, monkeypatch):
  pair = Pair(bsuite_id, monkeypatch)
  rng = np.random.RandomState(1)
  for _ in range(steps):
    pair.step(rng.randint(3))


def test_cartpoles_time_limit_is_bsuites(monkeypatch):
  pair = Pair('cartpole_swingup/0', monkeypatch, cart_state)
  lengths = [bool(pair.step(1).last()) for _ in range(1_003)]
  assert lengths.index(True) == 1_001 == control.CARTPOLE_STEPS
  assert pair.state.log.best_episode == 0.0


def test_cartpole_balanced_to_the_end_by_a_controller(monkeypatch):
  pair = Pair('cartpole/3', monkeypatch, cart_state)
  timestep, steps = pair.step(0), 0
  while not timestep.last():
    x, x_dot, sin, _, theta_dot, _ = np.asarray(timestep.observation)[0]
    push = 20 * sin + 3 * theta_dot + 1.5 * x + 3 * x_dot
    timestep = pair.step(2 if push > 0.3 else 0 if push < -0.3 else 1)
    steps += 1
  assert steps == 1_001
  assert pair.state.log.best_episode == 1_001.0
  assert_same_log(pair)


def test_mountain_car_reaches_the_goal_by_swinging(monkeypatch):
  pair = Pair('mountain_car/0', monkeypatch, car_state)
  timestep, steps = pair.step(0), 0
  while not timestep.last():
    timestep = pair.step(2 if timestep.observation[0, 1] >= 0 else 0)
    steps += 1
  assert steps < 200 and timestep.observation[0, 0] >= 0.5
  assert_same_log(pair)


def test_totals_of_long_runs_lose_nothing_to_rounding():
  def step(params, state, action, draws):
    last = state == 999
    return dynamics_lib.Step(jnp.where(last, 0, state + 1), jnp.float32(0.9), last, {'raw_return': jnp.float32(-0.1)})

  nothing = lambda *args: ()
  spec = lib.make_bsuite('bandit/0').environment.observation_spec
  counter = dynamics_lib.Dynamics(
    nothing, lambda *args: jnp.int32(0), nothing, step, lambda *args: jnp.ones((1, 1)), 2, spec, ('raw_return',)
  )
  environment = lib.make_environment('counter', counter, log_episodes=lib.log_schedule(300))
  params = lib.BsuiteParams((), jnp.float32(0.0), jnp.float32(1.0))
  key = jax.random.key(0)
  state, _ = environment.reset(params, key)
  run = lambda i, state: environment.step(params, state, jnp.int32(0), key)[0]
  log = jax.jit(lambda state: jax.lax.fori_loop(0, 300 * 1_001 - 1, run, state))(state).log
  last = dict(zip(lib.log_columns(counter), np.asarray(log.rows)[int(log.num_rows) - 1], strict=True))
  assert last['episode'] == 300 and last['steps'] == 300_000 and last['episode_len'] == 1_000
  np.testing.assert_allclose([last['total_return'], last['raw_return']], [270_000, -30_000], rtol=5e-5)


@pytest.mark.parametrize('num', [1_000, 10_000])
def test_log_schedule_is_bsuites(num):
  expected = [n for n in range(1, num + 1) if wrappers._logarithmic_logging(n)]
  assert lib.log_schedule(num).tolist() == expected


# --------------------------------------------------------------------------------------------------- its own randomness


@pytest.mark.parametrize('bsuite_id', [f'{name}/0' for name in lib.experiments() if 'mnist' not in name])
def test_every_environment_runs_by_its_keys_under_vmap_and_scan(bsuite_id):
  task = lib.make_bsuite(bsuite_id, log=True)
  environment, num, steps = types.batched(task.environment, 3), 3, 150

  def body(carry, key):
    state, total = carry
    keys = jax.random.split(key, 2 * num)
    action = jax.vmap(lambda k: jax.random.randint(k, (), 0, environment.num_actions))(keys[:num])
    state, timestep = environment.step(task.params, state, action, keys[num:])
    return (state, total + timestep.reward), timestep

  @jax.jit
  def run(key):
    key_reset, key_steps = jax.random.split(key)
    state, first = environment.reset(task.params, jax.random.split(key_reset, num))
    (state, total), steps_of = jax.lax.scan(body, (state, jnp.zeros(num)), jax.random.split(key_steps, steps))
    return state, first, total, steps_of

  state, first, total, timesteps = run(jax.random.key(0))
  assert first.step_type.tolist() == [types.FIRST] * num
  np.testing.assert_allclose(state.log.total_return + state.log.episode_return, total, rtol=1e-4, atol=1e-4)
  kinds = np.asarray(timesteps.step_type)
  assert ((kinds[1:] == types.FIRST) == (kinds[:-1] == types.LAST)).all()
  assert (state.log.episode == (kinds == types.LAST).sum(axis=0)).all()
  assert (state.log.steps == (kinds != types.FIRST).sum(axis=0)).all()
  timestep = jax.tree.map(lambda x: x[0], first)
  assert timestep.observation.shape == environment.observation_spec.shape
  assert timestep.observation.dtype == environment.observation_spec.dtype


def draws_of(name, num=4_000):
  """Many resets of an experiment's own draws."""
  dynamics, _, _ = lib._make_dynamics(name, sweep.SETTINGS[f'{name}/3'], '')
  keys = jax.random.split(jax.random.key(0), num)
  return jax.device_get(jax.vmap(dynamics.draw_reset)(keys)), jax.device_get(jax.vmap(dynamics.draw_step)(keys))


def test_what_is_drawn_has_the_range_and_the_frequencies_of_bsuites():
  ball, _ = draws_of('catch')
  np.testing.assert_allclose(np.bincount(ball, minlength=5) / len(ball), 0.2, atol=0.03)
  cart, _ = draws_of('cartpole')
  assert (np.abs(cart) <= 0.05).all() and np.abs(cart.mean()) < 0.002 and np.abs(cart).max() > 0.049
  position, _ = draws_of('mountain_car')
  assert position.min() >= -0.6 and position.max() <= -0.4 and abs(position.mean() + 0.5) < 0.005
  (context, query), _ = draws_of('memory_size')  # four bits
  assert set(np.unique(context)) == {0, 1} and abs(context.mean() - 0.5) < 0.03
  np.testing.assert_allclose(np.bincount(query, minlength=4) / len(query), 0.25, atol=0.03)
  (need_has, _), (coin, distractors) = draws_of('umbrella_length')
  np.testing.assert_allclose(need_has.mean(axis=0), 0.5, atol=0.03)
  assert abs(np.corrcoef(need_has.T)[0, 1]) < 0.05
  assert coin.shape == (4_000, 1) and distractors.shape == (4_000, 20) and abs(distractors.mean() - 0.5) < 0.01
  _, (slip, noise) = draws_of('deep_sea_stochastic')
  assert 0 <= slip.min() and slip.max() < 1 and abs(noise.std() - 1) < 0.04


def test_noise_and_scale_of_rewards_are_those_of_the_id():
  task = lib.make_bsuite('bandit_noise/19')  # noise of 10
  assert float(task.params.noise_scale) == 10.0 and float(task.params.reward_scale) == 1.0
  state, _ = task.environment.reset(task.params, jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), 4_000)
  _, timestep = jax.vmap(lambda key: task.environment.step(task.params, state, jnp.int32(0), key))(keys)
  assert abs(timestep.reward.std() - 10.0) < 0.4
  assert abs(timestep.reward.mean() - task.params.setting[0]) < 0.5
  scaled = lib.make_bsuite('catch_scale/19')
  assert float(scaled.params.reward_scale) == 1_000.0 and float(scaled.params.noise_scale) == 0.0
