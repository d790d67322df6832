"""bsuite's ids: which there are, which share a program, and MNIST's local files."""

import gzip

import jax
import jax.numpy as jnp
import mnist_data
import numpy as np
import pytest
from bsuite import sweep

from hyperagent_jax.config import ConfigError
from hyperagent_jax.envs.bsuite import tasks as lib

MNIST = (mnist_data.IMAGES, mnist_data.LABELS)


def test_ids_of_one_program_are_stacked_and_run_as_they_do_alone():
  tasks = [lib.make_bsuite(f'cartpole_swingup/{i}') for i in (0, 10, 19)]
  params = lib.stack_params(tasks)
  assert params.setting.height_threshold.tolist() == pytest.approx([0.0, 0.5, 0.95])
  environment, key = tasks[0].environment, jax.random.key(0)
  together, timesteps = jax.vmap(environment.reset, in_axes=(0, None))(params, key)
  together, timesteps = jax.vmap(environment.step, in_axes=(0, 0, None, None))(params, together, jnp.int32(2), key)
  for i, task in enumerate(tasks):
    state, _ = task.environment.reset(task.params, key)
    _, timestep = task.environment.step(task.params, state, jnp.int32(2), key)
    np.testing.assert_allclose(timesteps.observation[i], timestep.observation, rtol=1e-6)
  other = lib.make_bsuite('cartpole/0')
  with pytest.raises(ValueError, match='do not share a program'):
    lib.stack_params([tasks[0], other])


def test_which_ids_share_a_program():
  count = lambda name: len({lib.make_bsuite(i).batch_key for i in lib.parse_ids(name)})
  assert {name: count(name) for name in ('catch', 'cartpole_noise', 'cartpole_swingup', 'memory_len', 'bandit')} == {
    'catch': 1,
    'cartpole_noise': 1,
    'cartpole_swingup': 1,
    'memory_len': 1,
    'bandit': 1,
  }
  assert count('umbrella_length') == 1
  assert {name: count(name) for name in ('deep_sea', 'memory_size')} == {'deep_sea': 21, 'memory_size': 17}


def test_ids_of_a_word():
  assert len(lib.parse_ids('SWEEP')) == 468 == len(set(lib.parse_ids('SWEEP')))
  assert len(lib.experiments()) == 23
  assert lib.parse_ids('exploration') == list(sweep.TAGS['exploration'])
  assert lib.parse_ids('catch') == [f'catch/{i}' for i in range(20)]
  assert lib.parse_ids('catch/3') == ['catch/3']


@pytest.mark.parametrize(
  'text, message',
  [
    ('cach/3', 'did you mean catch'),
    ('catch/20', 'catch has settings 0 to 19'),
    ('catch/x', 'catch has settings 0 to 19'),
    ('explorasion', 'did you mean exploration'),
    ('qqqqq', 'there are SWEEP'),
    ('', 'there are SWEEP'),
  ],
)
def test_a_word_that_names_nothing_is_refused_with_near_matches(text, message):
  with pytest.raises(ConfigError, match=message) as e:
    lib.parse_ids(text)
  assert str(e.value).startswith(f'--bsuite_id={text}: ') and '\n' not in str(e.value)
  with pytest.raises(ConfigError, match=message):
    lib.make_bsuite(text)


@pytest.mark.parametrize('text, number, first', [('catch', 20, 'catch/0'), ('SWEEP', 468, 'bandit/0')])
def test_one_environment_is_of_one_id(text, number, first):
  with pytest.raises(ConfigError, match=f'^--bsuite_id={text}: stands for {number} ids; .* such as {first}$'):
    lib.make_bsuite(text)


# ---------------------------------------------------------------------------------------------------------------- mnist


def test_mnist_comes_from_local_files_as_bsuite_reads_them(tmp_path):
  mnist_data.write(tmp_path)
  images, labels = lib.load_mnist(str(tmp_path))
  assert images.dtype == np.int8 and (images == MNIST[0].astype(np.int8)).all() and (labels == MNIST[1]).all()
  task = lib.make_bsuite('mnist/0', mnist_dir=str(tmp_path))
  _, timestep = task.environment.reset(task.params, jax.random.key(0))
  assert timestep.observation.shape == (28, 28)


def test_the_ids_of_mnist_read_its_files_once(tmp_path, monkeypatch):
  mnist_data.write(tmp_path)
  read, load = [], lib.load_mnist
  monkeypatch.setattr(lib, 'load_mnist', lambda directory: read.append(directory) or load(directory))
  for bsuite_id in ('mnist/0', 'mnist/1', 'mnist_noise/19', 'mnist_scale/3'):
    lib.make_bsuite(bsuite_id, mnist_dir=str(tmp_path))
  assert read == [str(tmp_path)]


def test_mnist_that_is_missing_or_broken_is_refused(tmp_path):
  with pytest.raises(ConfigError, match=rf'^--mnist_dir={tmp_path}: train-images-idx3-ubyte\.gz is missing'):
    lib.make_bsuite('mnist_noise/0', mnist_dir=str(tmp_path))
  mnist_data.write(tmp_path, labels=MNIST[1][:-1])
  with pytest.raises(ConfigError, match='30 images but 29 labels'):
    lib.load_mnist(str(tmp_path))
  (tmp_path / 'train-labels-idx1-ubyte.gz').write_bytes(gzip.compress(b'no such file'))
  with pytest.raises(ConfigError, match='not a file of MNIST'):
    lib.load_mnist(str(tmp_path))
  for broken in (
    b'no gzip',
    b'\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03garbage',
    gzip.compress(b''),
    gzip.compress(b'12345'),
  ):
    (tmp_path / 'train-images-idx3-ubyte.gz').write_bytes(broken)
    with pytest.raises(ConfigError, match='train-images') as e:
      lib.load_mnist(str(tmp_path))
    assert '\n' not in str(e.value)
