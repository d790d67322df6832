"""Environments: DeepSea as a JAX program, and adapters to and from dm_env."""

from hyperagent_jax.envs import adapters, deep_sea

__all__ = ['adapters', 'deep_sea']
