"""Environments: DeepSea as a JAX program, Atari, and adapters to and from dm_env.

`hyperagent_jax.envs.atari` is imported by its name, since it needs ale-py.
"""

from hyperagent_jax.envs import adapters, deep_sea

__all__ = ['adapters', 'deep_sea']
