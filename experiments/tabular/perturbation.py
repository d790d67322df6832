"""What the perturbation does: regret with, without and with more of it, and by its distribution."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.common.tables import format_table
from experiments.tabular import agents
from experiments.tabular.study import (
  COLOURS,
  Row,
  Study,
  TabularConfig,
  band,
  column,
  draw_band,
  groups,
  legend,
  new_figure,
  regrets_on_random_mdps,
)
from hyperagent_jax import tabular
from hyperagent_jax.distributions import PERTURBATIONS, REFERENCES
from hyperagent_jax.tabular.hyperagent import informed

COLUMNS = ('question', 'case', 'scale', 'mean', 'low', 'high', 'num_mdps')
SCALES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
SCALE, LAWS = 'scale', 'distributions'
# Perturbed or not, with a prior in the middle or at the best that may come.
CASES = {
  'perturbed visits, neutral prior': (True, agents.NEUTRAL['optimism']),
  'prior noise only, neutral prior': (False, agents.NEUTRAL['optimism']),
  'perturbed visits, optimistic prior': (True, 1.0),
  'prior noise only, optimistic prior': (False, 1.0),
}


def run(settings: TabularConfig, reduced: bool) -> list[Row]:
  """Every case at every scale; every pair of distributions at one."""
  problem, dim = settings.problem, settings.index_dim
  rows: list[Row] = []

  def add(question: str, case: str, scale: float, agent: tabular.TabularAgent) -> None:
    regrets = regrets_on_random_mdps(agent, settings).sum(1)
    mean, low, high = (float(x) for x in band(regrets))
    place = {'question': question, 'case': case, 'scale': scale, 'num_mdps': settings.num_mdps}
    rows.append({**place, 'mean': mean, 'low': low, 'high': high})
    print(f'  {case}, {scale:g}: {mean:,.1f}', flush=True)

  for case, (perturbed, optimism) in CASES.items():
    for scale in SCALES[::2] if reduced else SCALES:
      parameters = informed(problem, scale, optimism)
      add(SCALE, case, scale, tabular.make_hyperagent(problem, dim, parameters, perturbed=perturbed))
  neutral, scale = informed(problem, **agents.NEUTRAL), agents.NEUTRAL['scale']
  for perturbation in PERTURBATIONS[::2] if reduced else PERTURBATIONS:
    add(LAWS, f'z {perturbation}', scale, tabular.make_hyperagent(problem, dim, neutral, perturbation=perturbation))
  # A state draws one index, so that an orthogonal one is a sphere's; one_hot is an ensemble's.
  for reference in [name for name in REFERENCES if name not in ('orthogonal', 'one_hot')][:: 2 if reduced else 1]:
    add(LAWS, f'index {reference}', scale, tabular.make_hyperagent(problem, dim, neutral, reference))
  return rows


def tell(rows: Sequence[Row]) -> str:
  """Regret of every case."""
  lines = [
    (row['case'], f'{row["scale"]:g}', f'{row["mean"]:,.1f}', f'{row["low"]:,.1f} to {row["high"]:,.1f}')
    for row in rows
  ]
  return format_table(('case', 'scale', 'regret', '95% interval'), lines) + f'\nMeans over {rows[0]["num_mdps"]} MDPs.'


def draw(rows: Sequence[Row]) -> Figure:
  """Left, regret against the scale; right, regret by distribution."""
  figure, axes = new_figure(2, width=5.4)
  left, right = axes[0]
  by_question = groups(rows, 'question')
  for number, (case, mine) in enumerate(groups(by_question[SCALE], 'case').items()):
    draw_band(left, column(mine, 'scale'), mine, case, number, marker='o', ms=4, ls='-' if number < 2 else '--')
  smallest = min(row['scale'] for row in by_question[SCALE] if row['scale'])
  left.set_xscale('symlog', linthresh=smallest)
  left.set(yscale='log', xlabel='scale of sigma (0: no noise at all)', ylabel='cumulative Bayesian regret')
  left.set_xlim(-smallest / 4, None)
  left.minorticks_off()
  legend(left)
  laws = by_question[LAWS]
  for place, row in enumerate(laws):
    colour = COLOURS[0] if row['case'].startswith('z') else COLOURS[1]
    right.errorbar(
      row['mean'], -place, xerr=[[row['mean'] - row['low']], [row['high'] - row['mean']]], fmt='o', color=colour
    )
  right.set(yticks=[-i for i in range(len(laws))], yticklabels=[row['case'] for row in laws])
  right.set(xlabel='cumulative Bayesian regret', title='by distribution, neutral prior', xlim=(0, None))
  left.set_title('by the size of the noise')
  return figure


STUDY = Study('what the perturbation does', COLUMNS, run, draw, tell)
