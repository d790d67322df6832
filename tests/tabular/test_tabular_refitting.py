import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tabular import computation
from experiments.tabular.study import TabularConfig
from hyperagent_jax.tabular import Episode, Problem, make_lmc_lsvi, make_rlsvi
from hyperagent_jax.tabular.hyperagent import Parameters, backward_values
from hyperagent_jax.tabular.refitting import (
  Data,
  Refitted,
  append,
  lmc_refit,
  make_lmc_lsvi_refit,
  make_rlsvi_refit,
  no_data,
  rlsvi_refit,
)
from hyperagent_jax.tabular.sampling import Counts

S, A, H = 3, 2, 2
CAPACITY, FILLED = 8, 6
PROBLEM = Problem(S, A, H, CAPACITY)
NUMBERS = Parameters(sigma=0.7, beta=3.0, prior_mean=1.0)
# sigma and mu0 of each stage, and rewards outside the regression.
STAGED = Parameters(np.array([0.3, 0.9], np.float32), 3.0, np.array([1.0, 0.0], np.float32), known_rewards=True)
REWARDS = jnp.asarray(np.random.default_rng(1).random((H, S, A)), jnp.float32)


RNG = np.random.default_rng(0)
STATES = RNG.integers(S, size=(CAPACITY, H + 1)).astype(np.int32)
ACTIONS = RNG.integers(A, size=(CAPACITY, H)).astype(np.int32)
FIRST_ROWS = np.arange(CAPACITY)[:, None] < FILLED
DATA = Data(jnp.where(FIRST_ROWS, STATES, 0), jnp.where(FIRST_ROWS, ACTIONS, 0), jnp.int32(FILLED))
COUNTS = np.zeros((H, S, A, S), np.float32)
for stage in range(H):
  np.add.at(COUNTS[stage], (STATES[:FILLED, stage], ACTIONS[:FILLED, stage], STATES[:FILLED, stage + 1]), 1.0)
VISITS = COUNTS.sum(-1)
both = pytest.mark.parametrize('parameters', [NUMBERS, STAGED], ids=['numbers', 'staged'])


def episode(i):
  return Episode(jnp.asarray(STATES[i]), jnp.asarray(ACTIONS[i]))


def exact_values(parameters, bonus):
  return backward_values(REWARDS, jnp.asarray(COUNTS), parameters, bonus)


@both
def test_refitting_without_noise_is_exact(parameters):
  parameters = parameters._replace(sigma=0.0)
  q = jax.jit(lambda key: rlsvi_refit(REWARDS, DATA, parameters, key))(jax.random.key(0))
  np.testing.assert_allclose(q, exact_values(parameters, jnp.zeros((H, S, A))), atol=1e-6)


@both
def test_refitting_has_the_law_of_exact_rlsvi(parameters):
  number = 8_000  # times S above 2^14, where sums of products that share counts come out wrong with jaxlib 0.10.2
  sigma = np.broadcast_to(parameters.sigma, H)[:, None, None]
  spread = np.asarray(sigma / np.sqrt(VISITS + parameters.beta), np.float32)
  exact = lambda key: exact_values(parameters, spread * jax.random.normal(key, (H, S, A)))
  sample = lambda f, seed: np.asarray(jax.jit(jax.vmap(f))(jax.random.split(jax.random.key(seed), number)))
  refitted = sample(lambda key: rlsvi_refit(REWARDS, DATA, parameters, key), 0).reshape(number, -1)
  expected = sample(exact, 1).reshape(number, -1)

  # The last stage's law in closed form: nothing follows it.
  last, n, reward = refitted[:, S * A :], VISITS[-1].reshape(-1), np.asarray(REWARDS[-1]).reshape(-1)
  mu0 = np.broadcast_to(parameters.prior_mean, H)[-1]
  known = parameters.known_rewards
  mean = (parameters.beta * mu0 + (0.0 if known else n * reward)) / (n + parameters.beta) + (reward if known else 0.0)
  deviation = spread[-1].reshape(-1)
  assert np.all(np.abs(last.mean(0) - mean) < 4.5 * deviation / number**0.5)
  np.testing.assert_allclose(last.var(0), deviation**2, rtol=4.5 * (2 / number) ** 0.5)

  # Both stages together: means, and all covariances, by which the first stage follows the last.
  scale = expected.std(0)
  assert np.all(np.abs(refitted.mean(0) - expected.mean(0)) < 4.5 * np.sqrt(2 / number) * scale)
  # A covariance's standard error is at most sqrt(2 / number) of the two deviations; here are two of them.
  assert np.all(np.abs(np.cov(refitted.T) - np.cov(expected.T)) < 4.5 * (2 / number**0.5) * np.outer(scale, scale))
  # The first stage follows the last: there is something for the last line to find.
  largest = np.abs(np.cov(expected.T)[: S * A, S * A :] / np.outer(scale[: S * A], scale[S * A :])).max()
  assert largest > 4.5 * 2 / number**0.5


def test_refitting_acts_as_exact_rlsvi_does():
  number = 4_000
  refit, exact = make_rlsvi_refit(PROBLEM, NUMBERS), make_rlsvi(PROBLEM, NUMBERS)

  def actions(agent, state, seed):
    act = lambda key: agent.policy(state, key)
    return jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(seed), number))

  ours = actions(refit, Refitted(REWARDS, DATA, None), 0)
  theirs = actions(exact, Counts(REWARDS, jnp.asarray(COUNTS)), 1)
  assert np.max(np.abs(ours.mean(0) - theirs.mean(0))) < 4.5 * math.sqrt(2 * 0.25 / number)


@both
def test_langevin_over_data_equals_langevin_by_counts(parameters):
  ours, theirs = make_lmc_lsvi_refit(PROBLEM, parameters, 5), make_lmc_lsvi(PROBLEM, parameters, 5)
  key = jax.random.key(4)
  state, expected = ours.init(key, REWARDS), theirs.init(key, REWARDS)
  update, update_expected, start = jax.jit(ours.update), jax.jit(theirs.update), state.q
  np.testing.assert_array_equal(start, expected.q)
  for i in range(CAPACITY):
    state, expected = (
      f(x, episode(i), jax.random.fold_in(key, i)) for f, x in ((update, state), (update_expected, expected))
    )
    np.testing.assert_allclose(state.q, expected.q, atol=1e-5)
  np.testing.assert_array_equal(ours.policy(state, key), theirs.policy(expected, key))
  assert np.abs(state.q - start).max() > 0.1  # the chain moves


def test_episodes_are_appended_as_long_as_there_is_room():
  data, add = no_data(PROBLEM), jax.jit(append)
  for i in range(CAPACITY):
    data = add(data, episode(i))
  more = add(data, episode(0))
  for kept in (data, more):
    np.testing.assert_array_equal(kept.states, STATES)
    np.testing.assert_array_equal(kept.actions, ACTIONS)
  assert int(data.num_episodes) == CAPACITY


def test_padding_never_enters():
  start, noise = jnp.ones((H, S, A)), jax.random.normal(jax.random.key(1), (H, 3, S, A))
  rlsvi = jax.jit(lambda data: rlsvi_refit(REWARDS, data, NUMBERS, jax.random.key(0)))
  langevin = jax.jit(lambda data: lmc_refit(REWARDS, data, start, noise, NUMBERS))
  for garbage in (1, -1, 99):
    spoilt = Data(*(jnp.where(FIRST_ROWS, x, garbage) for x in (STATES, ACTIONS)), DATA.num_episodes)
    for refit in (rlsvi, langevin):
      np.testing.assert_array_equal(refit(spoilt), refit(DATA))


def test_operations_of_a_known_program():
  def program(x, key):
    def step(carry, row):
      return carry + 2.0 * row, jnp.max(row)  # 3 products, 3 sums, and 3 numbers that a maximum goes through

    total, most = jax.lax.scan(step, x[0], x)
    noise = jax.random.bits(key, (4,))
    return jnp.sum(jnp.exp(total)), most[::-1], noise, jax.ops.segment_sum(x[:, 0], jnp.zeros(5, int), 2)

  x = jnp.ones((5, 3))
  counted = computation.operations(program, x, jax.random.key(0))
  sums = computation.operations(lambda y: jax.ops.segment_sum(y, jnp.zeros(5, int), 2), jnp.ones(5))
  assert counted == 5 * (3 + 3 + 3) + 3 + 3 + sums + 4 * 118
  assert 5 <= sums <= 5 * 4  # a sum each; before it the index may be brought into range


def test_operations_agree_with_xla_where_nothing_repeats():
  def program(x):
    return jnp.sum(x * x + 1.0, axis=-1)

  x = jnp.ones((7, 11))
  analysis = jax.jit(program).lower(x).compile().cost_analysis()
  flops = (analysis[0] if isinstance(analysis, list) else analysis)['flops']
  assert computation.operations(program, x) == 3 * 77
  assert abs(flops - 3 * 77) <= 7  # a sum of 11 numbers takes 10 additions


def test_operations_of_a_matrix_product():
  assert computation.operations(jnp.dot, jnp.ones((2, 9)), jnp.ones((9, 4))) == 2 * 2 * 9 * 4


def test_operations_refuse_what_they_cannot_count():
  with pytest.raises(ValueError, match='top_k'):
    computation.operations(lambda x: jax.lax.top_k(x, 2), jnp.ones(9))


@functools.cache
def cost(name, num_episodes):
  """Operations of an episode and bytes of the state, from shapes alone."""
  problem = Problem(S, A, H, num_episodes)
  agent = computation.make_agents(problem, 4)[name]
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(agent.init, key, REWARDS)
  counted = computation.operations(functools.partial(computation.one_episode, agent), state, episode(0), key)
  return counted, computation.num_bytes(state)


@pytest.mark.parametrize('name', ['HyperAgent', 'PSRL', 'RLSVI (counts)'])
def test_some_costs_do_not_depend_on_the_past(name):
  assert cost(name, 64) == cost(name, 4096)


@pytest.mark.parametrize('name', ['RLSVI (refitting)', 'LMC-LSVI (data)'])
def test_other_costs_grow_with_the_past(name):
  at = {k: np.array(cost(name, k)) for k in (2**14, 2**15, 2**16)}
  # A constant and a part in proportion to k, which exactly doubles, and is nearly all.
  np.testing.assert_array_equal(at[2**16] - at[2**15], 2 * (at[2**15] - at[2**14]))
  assert np.all(at[2**16] > 1.98 * at[2**15])


def test_bytes_by_hand():
  assert cost('HyperAgent', 64)[1] == 4 * (H * S * A * (1 + S + 4) + 1)  # rewards, counts, factor, steps
  assert cost('RLSVI (refitting)', 64)[1] == 4 * (H * S * A + 64 * (2 * H + 1) + 1)  # rewards, data, their number


def test_measuring_gives_a_row_for_each_agent_and_number(monkeypatch):
  everyone = computation.make_agents
  few = lambda *given: {name: everyone(*given)[name] for name in ('RLSVI (counts)', 'RLSVI (refitting)')}
  monkeypatch.setattr(computation, 'make_agents', few)
  rows = computation.measure(TabularConfig(num_states=S, num_actions=A, horizon=H), [16, 32], 1)
  assert [(row['agent'], row['episodes']) for row in rows] == [(name, k) for name in few(PROBLEM, 4) for k in (16, 32)]
  for row in rows:
    assert set(row) == set(computation.COLUMNS) and row['seconds'] > 0.0
    assert (row['operations'], row['bytes']) == cost(row['agent'], row['episodes'])


def test_the_study_draws_and_tells():
  rows = [
    {'agent': name, 'episodes': k, 'operations': 7 * k**power, 'seconds': 1e-6 * k**power, 'bytes': 9 * k**power}
    for name, power in (('flat', 0), ('steep', 1))
    for k in (64, 128, 256, 512)
  ]
  assert len(computation.draw(rows).axes) == 3
  lines = computation.tell(rows).splitlines()
  assert lines[0].split() == ['k', '=', '64', 'k', '=', '512', 'slope']
  assert lines[1].split() == ['flat', 'operations', '7', '7', '0.00']
  assert lines[2].split() == ['steep', 'operations', '448', '3584', '1.00']
