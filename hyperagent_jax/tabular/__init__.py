"""HyperAgent's theory, executable: small MDPs, exact planning and exact regret, HyperAgent by Eq. 5-7, its rivals.

Everything here is a pure function of one MDP and one key; callers vmap over both. Shapes use the theory's letters:

  S  states          H  stages of an episode       M  index dimension
  A  actions         K  episodes of a run          N  visits of a state, action and stage

Stages count from 0. What an agent is told is a `Problem`'s numbers and the rewards; transitions it must learn.
"""

from hyperagent_jax.tabular import bandits, bridge, refitting, spreading
from hyperagent_jax.tabular.hyperagent import Parameters, fixed_point, informed, make_hyperagent, table_6
from hyperagent_jax.tabular.mdp import MDP, DiscountedMDP, deep_sea, random_discounted_mdp, random_mdp, river_swim
from hyperagent_jax.tabular.optimism import make_bayes_ucbvi, make_incre_bayes_ucbvi, make_ucbvi
from hyperagent_jax.tabular.planning import (
  Plan,
  backward_induction,
  discounted_policy_value,
  greedy,
  occupancy,
  policy_value,
  regret,
  value_iteration,
)
from hyperagent_jax.tabular.play import play
from hyperagent_jax.tabular.sampling import (
  make_ensemble_sampling,
  make_epsilon_greedy,
  make_known,
  make_lmc_lsvi,
  make_psrl,
  make_rlsvi,
)
from hyperagent_jax.tabular.types import Episode, Problem, TabularAgent

__all__ = [
  'MDP',
  'DiscountedMDP',
  'Episode',
  'Parameters',
  'Plan',
  'Problem',
  'TabularAgent',
  'backward_induction',
  'bandits',
  'bridge',
  'deep_sea',
  'discounted_policy_value',
  'fixed_point',
  'greedy',
  'informed',
  'make_bayes_ucbvi',
  'make_ensemble_sampling',
  'make_epsilon_greedy',
  'make_hyperagent',
  'make_incre_bayes_ucbvi',
  'make_known',
  'make_lmc_lsvi',
  'make_psrl',
  'make_rlsvi',
  'make_ucbvi',
  'occupancy',
  'play',
  'policy_value',
  'random_discounted_mdp',
  'random_mdp',
  'refitting',
  'regret',
  'river_swim',
  'spreading',
  'table_6',
  'value_iteration',
]
