"""Installs hyperagent_jax."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent


def requirements(*names: str) -> list[str]:
  """The lines of requirements.txt for these packages, so that bounds are written once."""
  lines = [line.split('#')[0].strip() for line in (HERE / 'requirements.txt').read_text().splitlines()]
  by_name = {re.split(r'[<>=!~\[]', line)[0]: line for line in lines if line}
  return [by_name[name] for name in names]


version = re.search(r"__version__ = '(.*)'", (HERE / 'hyperagent_jax' / '__init__.py').read_text())[1]

setuptools.setup(
  name='hyperagent_jax',
  version=version,
  description='HyperAgent (ICML 2024) in JAX: scalable posterior sampling for exploration in reinforcement learning',
  long_description=(HERE / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=[
    *('hyperagent_jax', 'hyperagent_jax.baselines', 'hyperagent_jax.data', 'hyperagent_jax.envs'),
    'hyperagent_jax.tabular',
    *('experiments', 'experiments.studies', 'experiments.tabular'),
  ],
  package_data={
    'hyperagent_jax': ['py.typed'],
    'hyperagent_jax.data': ['*.csv'],
    'experiments': ['reference/*'],
  },
  install_requires=requirements(
    'absl-py', 'chex', 'dm-env', 'flax', 'jax', 'jaxlib', 'numpy', 'optax', 'orbax-checkpoint'
  ),
  extras_require={
    'atari': requirements('ale-py', 'gymnasium'),  # gymnasium: ale-py's vector environments import it
    'bsuite': requirements('bsuite'),
    'figures': requirements('matplotlib', 'pillow', 'tensorboardX'),
    'test': requirements(
      *('ale-py', 'bsuite', 'gymnasium', 'matplotlib', 'pillow', 'pytest', 'pytest-xdist', 'rlax', 'ruff', 'scipy'),
      'tensorboardX',
    ),
  },
)
