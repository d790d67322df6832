"""Environments: DeepSea as a JAX program, and adapters to and from dm_env."""
