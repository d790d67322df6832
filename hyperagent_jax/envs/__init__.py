"""Environments: DeepSea as a JAX program, Atari, bsuite, histories of observations, and adapters to and from dm_env.

`atari` and `bsuite` are imported by their names, since they need ale-py and bsuite.
"""

from hyperagent_jax.envs import adapters, deep_sea, history

__all__ = ['adapters', 'deep_sea', 'history']
