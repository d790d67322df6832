"""Each worked example runs, learns from every step, and does what its docstring says."""

import dataclasses
import pathlib
import re

import dm_env
import flax.linen as nn
import jax
import numpy as np
import pytest
from bsuite.environments.catch import Catch
from dm_env import specs

import hyperagent_jax as ha
from examples import any_environment, own_loop, own_network, with_history
from hyperagent_jax.host import check_specs
from hyperagent_jax.networks import MLPTorso, join_with_prior

FOLDER = pathlib.Path(__file__).parent.parent / 'examples'


def moved(params, target):
  return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(target), strict=True))


def finite(tree):
  return all(np.all(np.isfinite(x)) for x in jax.tree.leaves(tree))


def test_own_loop():
  num_steps = 1_800
  learner, returns = own_loop.main(num_steps)
  # Every step is a transition here, since the loop never records what leads from one episode to the next.
  assert int(learner.num_updates) == num_steps - own_loop.CONFIG.min_replay + 1
  assert len(returns) == num_steps // 9 and set(returns) <= {-1.0, 1.0}  # an episode of catch takes nine steps
  assert np.mean(returns[:20]) < 0 < 0.6 < np.mean(returns[-50:])  # it has learnt to catch
  assert finite(learner.params) and moved(learner.params, learner.target_params)


def test_the_ring_buffer_keeps_the_newest_transitions():
  buffer = own_loop.RingBuffer(3, np.zeros((2,), np.float32))
  for t in range(5):
    buffer.add(ha.Transition(np.full(2, t), t, -float(t), 0.5, np.full(2, t + 1)))
  batch = buffer.sample(np.random.default_rng(0), 50)
  assert set(batch.a_tm1) == {2, 3, 4}
  np.testing.assert_array_equal(batch.o_t[:, 0], batch.a_tm1 + 1)
  np.testing.assert_array_equal(batch.r_t, -batch.a_tm1)
  assert batch.o_tm1.shape == (50, 2) and set(batch.discount_t) == {0.5}


def test_with_history():
  returns = with_history.main(num_steps=4_000)
  assert abs(returns[1]) < 0.3 and returns[6] > 0.9  # it guesses, and it remembers


def test_own_network():
  num_steps = 3_000
  host_agent, returns = own_network.main(num_steps)
  assert num_steps - len(returns) - 1 == host_agent.num_interactions  # all time steps but those that start an episode
  assert int(host_agent.learner.num_updates) > num_steps - 200
  assert np.mean(returns[:50]) < -0.3 and np.mean(returns[-50:]) > 0.1  # it has learnt to park
  assert np.isfinite(float(host_agent.losses.loss))
  assert {'torso', 'head'} == set(host_agent.learner.params)
  assert moved(host_agent.learner.params, host_agent.learner.target_params)
  assert -1.0 - 1e-6 <= min(returns) and max(returns) <= 0.95


def test_parking_follows_dm_env():
  environment = own_network.Parking(seed=0)
  ends = set()
  for action in np.random.default_rng(0).integers(3, size=3_000):
    timestep = environment.step(int(action))
    jax.tree.map(lambda s, x: s.validate(x), environment.observation_spec(), timestep.observation)
    if timestep.last():
      ends.add((timestep.reward > 0, timestep.discount))
  # Parked, past the bay, or out of time.
  assert ends == {(True, 0.0), (False, 0.0), (False, 1.0)}
  assert environment.reset().step_type == dm_env.StepType.FIRST


def test_any_environment(capsys):
  curves = any_environment.main(num_steps=2_000, period=500)
  assert set(curves) == {'catch', 'CartPole-v1'}
  assert all(len(curve) == 4 and np.all(np.isfinite(curve)) for curve in curves.values())
  assert np.all(np.abs(curves['catch']) <= 1) and np.all(np.array(curves['CartPole-v1']) >= 8)
  assert curves['catch'][0] < 0 < curves['catch'][-1]
  assert curves['CartPole-v1'][-1] > 2 * curves['CartPole-v1'][0]
  assert capsys.readouterr().out.count('mean return') == 8


@pytest.mark.parametrize('module', [any_environment, own_loop, own_network])
def test_docstrings_name_the_command(module):
  assert f'python -m {module.__name__}' in module.__doc__


def test_the_readme_names_files_and_settings_that_exist():
  text = (FOLDER / 'README.md').read_text()
  links = [x for x in re.findall(r'\]\(([^)#]+)\)', text) if '://' not in x]
  assert links and all((FOLDER / link).exists() for link in links)
  for name in re.findall(r'`ha\.([A-Za-z_.]+)', text):
    part = ha
    for word in name.split('.'):
      part = getattr(part, word)


CONFIG = dataclasses.replace(ha.presets.vector_observations(), hidden_sizes=(8,), batch_size=4)
ACTIONS, NUMBERS = specs.DiscreteArray(2), specs.Array((2,), np.float32)
OBSERVATION = {'name': np.ones((5, 2), np.float32)}
BATCH = ha.Transition(np.ones((4, 2), np.float32), np.zeros(4, np.int32), np.ones(4), np.ones(4), np.ones((4, 2)))


class Flat(nn.Module):
  def __call__(self, observation):
    return observation['name'].ravel()


class Batched(nn.Module):
  """A torso that does not return a vector."""

  def __call__(self, observation):
    return observation['name']


def checked(action, observation):
  environment = own_network.Parking(seed=0)
  environment.action_spec, environment.observation_spec = lambda: action, lambda: observation
  check_specs(environment)


def hosted(frame_stack=1, **changes):
  config = dataclasses.replace(CONFIG, **changes)
  agent = ha.make_hyperagent(join_with_prior(Flat, config, 2), ha.make_optimizer(config), config)
  return ha.HostAgent(agent, ha.make_replay(100, 1, 1, 0.99, frame_stack), 2, config, seed=0)


def updated(**changes):
  config = dataclasses.replace(CONFIG, **changes)
  agent = ha.make_hyperagent(ha.make_network(config, 2), ha.make_optimizer(config), config)
  agent.update(agent.init(jax.random.key(0), BATCH.o_tm1[0]), BATCH, jax.random.key(1))


@pytest.mark.parametrize(
  'what, mistake',
  [
    ('continuous actions', lambda: checked(specs.BoundedArray((6,), np.float32, -1, 1), NUMBERS)),
    ('text in an observation', lambda: checked(ACTIONS, {'name': specs.StringArray(())})),
    ('the wrong number of actions', lambda: ha.run_loop(hosted(), Catch())),
    ('dicts in stacks of frames', lambda: hosted(frame_stack=2).step(dm_env.restart(OBSERVATION))),
    (
      'a torso that returns no vector',
      lambda: join_with_prior(Batched, CONFIG, 2).init(jax.random.key(0), OBSERVATION),
    ),
    (
      "a table for other states than DeepSea's",
      lambda: join_with_prior(Batched, ha.presets.deep_sea(), 2).init(jax.random.key(0), OBSERVATION),
    ),
    ('sigma > 0 without the extras', lambda: updated(sigma=0.1)),
    ('beta > 0 without replay_size', lambda: updated(beta=0.1)),
    ('several environments on the host', lambda: hosted(num_envs=2)),
    ('a dict for the MLP', lambda: MLPTorso((8,)).init(jax.random.key(0), OBSERVATION)),
    ('one integer for the MLP', lambda: MLPTorso((8,)).init(jax.random.key(0), np.int32(3))),
  ],
)
def test_the_readme_quotes_errors_word_by_word(what, mistake):
  quoted = dict(re.findall(r'^\| (.*) \| `(.*)` \|$', (FOLDER / 'README.md').read_text(), flags=re.MULTILINE))
  with pytest.raises(ValueError) as error:
    mistake()
  assert str(error.value).splitlines()[0] == quoted[what]  # JAX adds lines about its own frames


def test_the_readme_quotes_no_other_errors():
  assert len(re.findall(r'^\| .* \| `.*` \|$', (FOLDER / 'README.md').read_text(), flags=re.MULTILINE)) == 11
