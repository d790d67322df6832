"""HyperAgent (ICML 2024, arXiv 2402.10228) in JAX: the public API on one screen."""

from hyperagent_jax import envs, losses, presets, scores
from hyperagent_jax.agent import make_hyperagent, make_optimizer
from hyperagent_jax.build import make, make_replay_for
from hyperagent_jax.config import ConfigError, HyperAgentConfig
from hyperagent_jax.distributions import make_perturbation, make_reference
from hyperagent_jax.envs.adapters import IntegerObservations, JaxEnvironment
from hyperagent_jax.envs.deep_sea import make_deep_sea
from hyperagent_jax.evaluation import make_evaluator
from hyperagent_jax.host import HostAgent, run_loop
from hyperagent_jax.networks import frame_layout, make_network
from hyperagent_jax.optimizers import clipped_adam
from hyperagent_jax.replay import Replay, make_replay, stored_rows
from hyperagent_jax.runner import Runner, RunnerState, make_runner, select_seed, steps_for
from hyperagent_jax.types import (
  ActorState,
  ActOutput,
  Agent,
  Environment,
  Extras,
  HyperQ,
  LearnerState,
  Network,
  TimeStep,
  Transition,
  from_dm_env,
)

__version__ = '0.2.0'

__all__ = [
  'ActOutput',
  'ActorState',
  'Agent',
  'ConfigError',
  'Environment',
  'Extras',
  'HostAgent',
  'HyperAgentConfig',
  'HyperQ',
  'IntegerObservations',
  'JaxEnvironment',
  'LearnerState',
  'Network',
  'Replay',
  'Runner',
  'RunnerState',
  'TimeStep',
  'Transition',
  'clipped_adam',
  'envs',
  'frame_layout',
  'from_dm_env',
  'losses',
  'make',
  'make_deep_sea',
  'make_evaluator',
  'make_hyperagent',
  'make_network',
  'make_optimizer',
  'make_perturbation',
  'make_reference',
  'make_replay',
  'make_replay_for',
  'make_runner',
  'presets',
  'run_loop',
  'scores',
  'select_seed',
  'steps_for',
  'stored_rows',
]
