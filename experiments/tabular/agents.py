"""The agents of the studies, with the theory's constants and with practical ones."""

from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import Parameters, informed
from hyperagent_jax.tabular.types import Problem, TabularAgent

NUM_INDICES = 4  # K of optimistic index sampling
# The best of `tuning`'s grid, whose MDPs are others than the studies'.
SCALE = {
  'HyperAgent': 0.003,
  'RLSVI': 0.003,
  'Ensemble sampling': 0.003,
  'LMC-LSVI': 0.003,
  'UCBVI': 1e-3,
  'epsilon-greedy': 0.01,
}
# mu0 in the middle of what can follow, so that it is the index that explores, and the best sigma for HyperAgent then.
NEUTRAL = {'scale': 0.1, 'optimism': 0.5}


def with_parameters(problem: Problem, dim: int, parameters: Parameters) -> dict[str, TabularAgent]:
  """The agents that regress values, with the same parameters."""
  return {
    'HyperAgent': tabular.make_hyperagent(problem, dim, parameters),
    'RLSVI': tabular.make_rlsvi(problem, parameters),
    'Ensemble sampling': tabular.make_ensemble_sampling(problem, dim, parameters),
    'LMC-LSVI': tabular.make_lmc_lsvi(problem, parameters),
  }


def theory(problem: Problem, dim: int) -> dict[str, TabularAgent]:
  """Agents with the constants of regret bounds.

  HyperAgent, RLSVI and UCBVI have those of their own bounds, what approximates RLSVI has RLSVI's. Optimistic index
  sampling has HyperAgent's, epsilon-greedy a schedule with the exponent of its bound in bandits.
  """
  return {
    'HyperAgent': tabular.make_hyperagent(problem, dim),
    'HyperAgent w. OIS': tabular.make_hyperagent(problem, dim, num_indices=NUM_INDICES),
    'RLSVI': tabular.make_rlsvi(problem),
    'Ensemble sampling': tabular.make_ensemble_sampling(problem, dim),
    'LMC-LSVI': tabular.make_lmc_lsvi(problem),
    'UCBVI': tabular.make_ucbvi(problem),
    'epsilon-greedy': tabular.make_epsilon_greedy(problem),
  }


def practical(problem: Problem, dim: int) -> dict[str, TabularAgent]:
  """Agents with what the problem tells (`hyperagent.informed`), optimistic priors, and scales that `tuning` chose."""
  agents = {
    name: with_parameters(problem, dim, informed(problem, SCALE[name]))[name]
    for name in ('HyperAgent', 'RLSVI', 'Ensemble sampling', 'LMC-LSVI')
  }
  optimistic = tabular.make_hyperagent(problem, dim, informed(problem, SCALE['HyperAgent']), num_indices=NUM_INDICES)
  return {
    **agents,
    'HyperAgent w. OIS': optimistic,
    'UCBVI': tabular.make_ucbvi(problem, SCALE['UCBVI']),
    'epsilon-greedy': tabular.make_epsilon_greedy(problem, SCALE['epsilon-greedy']),
  }


def without_constants(problem: Problem) -> dict[str, TabularAgent]:
  """PSRL, which has none and the MDPs' own prior, and two that were not tuned."""
  return {
    'PSRL': tabular.make_psrl(problem),
    'Bayes-UCBVI': tabular.make_bayes_ucbvi(problem),
    'Incre-Bayes-UCBVI': tabular.make_incre_bayes_ucbvi(problem),
  }
