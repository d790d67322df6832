"""The agents of the studies, with the theory's constants and with practical ones."""

from hyperagent_jax import tabular
from hyperagent_jax.tabular.hyperagent import Parameters, informed
from hyperagent_jax.tabular.types import Problem, TabularAgent

NUM_INDICES = 4  # K of optimistic index sampling
# The best of `tuning`'s grid, whose MDPs are others than the studies'.
SCALE = {'HyperAgent': 0.01, 'RLSVI': 0.01, 'Ensemble sampling': 0.01, 'LMC-LSVI': 0.01, 'UCBVI': 3e-4}
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
  """With the constants of each one's regret bound."""
  return {
    'HyperAgent': tabular.make_hyperagent(problem, dim),
    'HyperAgent w. OIS': tabular.make_hyperagent(problem, dim, num_indices=NUM_INDICES),
    'RLSVI': tabular.make_rlsvi(problem),
    'Ensemble sampling': tabular.make_ensemble_sampling(problem, dim),
    'LMC-LSVI': tabular.make_lmc_lsvi(problem),
    'UCBVI': tabular.make_ucbvi(problem),
  }


def practical(problem: Problem, dim: int) -> dict[str, TabularAgent]:
  """With what the problem tells (`hyperagent.informed`), optimistic priors, and scales that `tuning` chose."""
  agents = {
    name: with_parameters(problem, dim, informed(problem, SCALE[name]))[name]
    for name in ('HyperAgent', 'RLSVI', 'Ensemble sampling', 'LMC-LSVI')
  }
  optimistic = tabular.make_hyperagent(problem, dim, informed(problem, SCALE['HyperAgent']), num_indices=NUM_INDICES)
  return {**agents, 'HyperAgent w. OIS': optimistic, 'UCBVI': tabular.make_ucbvi(problem, SCALE['UCBVI'])}


def without_constants(problem: Problem) -> dict[str, TabularAgent]:
  """Those that have none to choose, or whose authors' are practical."""
  return {
    'PSRL': tabular.make_psrl(problem),
    'Bayes-UCBVI': tabular.make_bayes_ucbvi(problem),
    'Incre-Bayes-UCBVI': tabular.make_incre_bayes_ucbvi(problem),
    'epsilon-greedy': tabular.make_epsilon_greedy(problem),
  }
