"""What tabular agents know, see and are."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hyperagent_jax.types import Array, PRNGKey


class Problem(NamedTuple):
  """What an agent is told about the MDP before it plays, its rewards aside."""

  num_states: int  # S
  num_actions: int  # A
  horizon: int  # H
  num_episodes: int  # K, which confidence levels and exploration schedules depend on
  beta: float = 3.0  # total of the Dirichlet prior of each next-state distribution, at least 3 in the theory

  @property
  def shape(self) -> tuple[int, int, int]:
    """[H, S, A]."""
    return self.horizon, self.num_states, self.num_actions


def check_problem(problem: Problem, rewards: Array) -> None:
  """ValueError where an agent was made for another problem than it is to play, or for none that can be."""
  if rewards.shape != problem.shape:
    raise ValueError(
      f'rewards have shape {rewards.shape}: must be [H, S, A] = {problem.shape}, the problem of the agent'
    )
  if problem.beta <= 0:
    raise ValueError(f'beta={problem.beta}: must be above 0, the weight of the prior')


class Episode(NamedTuple):
  """The trajectory of one episode."""

  states: Array  # [H + 1] int32
  actions: Array  # [H] int32


class TabularAgent(NamedTuple):
  """A learner for finite-horizon MDPs as pure functions of one run."""

  init: Callable[[PRNGKey, Array], Any]  # key, rewards [H, S, A] in [0, 1] -> state
  policy: Callable[[Any, PRNGKey], Array]  # state, key -> [H, S, A] probabilities of the episode's policy
  update: Callable[[Any, Episode, PRNGKey], Any]  # state, the episode played, key -> state
