"""Says what hyperagent_jax needs, from requirements.txt; everything else about the package is in pyproject.toml."""

import pathlib
import re

import setuptools

# Not the working directory: a wheel may be built from an unpacked archive.
REQUIREMENTS = pathlib.Path(__file__).parent / 'requirements.txt'


def requirements(*names: str) -> list[str]:
  """The lines of requirements.txt for these packages, so that bounds are written once."""
  lines = [line.split('#')[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
  by_name = {re.split(r'[<>=!~\[]', line)[0]: line for line in lines if line}
  return [by_name[name] for name in names]


# The modules that the first four bring are listed once more in experiments/common/extras.py.
extras = {
  'experiments': requirements('absl-py', 'orbax-checkpoint', 'scipy'),
  # gymnasium: ale-py's vector environments import it. jaxlib: the first whose foreign functions ale-py 0.12 was built
  # for; where it is older, importing both leaves JAX without its CPU.
  'atari': [*requirements('ale-py', 'gymnasium'), 'jaxlib>=0.9.1'],
  'bsuite': requirements('bsuite'),
  'figures': requirements('matplotlib', 'pillow', 'tensorboardX'),
  'docs': requirements('furo', 'myst-nb', 'sphinx'),
  'test': requirements('build', 'hypothesis', 'mypy', 'pytest', 'pytest-xdist', 'rlax', 'ruff', 'setuptools'),
}

setuptools.setup(
  install_requires=requirements('chex', 'dm-env', 'flax', 'jax', 'jaxlib', 'numpy', 'optax'),
  extras_require={**extras, 'all': [line for lines in extras.values() for line in lines]},
)
