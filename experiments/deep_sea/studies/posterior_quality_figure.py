"""The figure of `posterior_quality.py`: posterior mean and spread, and the error of sampled gradients."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments.common.plotting import BLUE, DARK, ORANGE, blank_figure
from experiments.deep_sea.studies.posterior_laws import Table, binned, fit_law, gradient_slope, where
from hyperagent_jax import presets

COLOURS, MARKERS, SKY = (DARK, ORANGE, BLUE), 'Dso', '#56B4E9'
ZERO = 0.5  # where no visits stand on a logarithmic axis


def draw(cells: Table, errors: Table) -> Figure:
  """The three panels."""
  figure = blank_figure(12, 4.6)
  axes = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
  _draw_means(axes[0], where(cells, sigma=cells['sigma'].min()))
  _draw_spreads(axes[1], where(cells, episodes=cells['episodes'].max()))
  _draw_gradients(axes[2], errors)
  titles: tuple[str, ...] = (
    f'(a) Optimal path, σ = {cells["sigma"].min():g}: moves to the right,\nposterior mean ± std (mean of seeds)',
  )
  titles += ('(b) Spread against visits, fitted by\nc / √(n + β); dotted: σ / √(M n)',)
  titles += ('(c) Gradients from N sampled indices,\nrelative error to the exact one',)
  labels = (('row', 'value'), ('visits n of state and action', 'posterior std (medians)'))
  for axis, title, (x, y) in zip(axes, titles, (*labels, ('update indices N', 'relative error')), strict=True):
    axis.set_title(title, fontsize=12)
    axis.set_xlabel(x, fontsize=11.5)
    axis.set_ylabel(y, fontsize=11.5)
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='#e4e4e4', lw=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=11)
    axis.legend(frameon=False, fontsize=11, loc='lower left' if x == 'row' else 'upper right')
  return figure


def _draw_means(axis: Axes, cells: Table) -> None:
  """Along the optimal path: the posterior of its moves at the last moments, and Q*."""
  path = {k: v[(cells['row'] == cells['column']) & (cells['right'] == 1)] for k, v in cells.items()}
  rows = np.unique(path['row'])
  for episodes, colour in zip(np.unique(path['episodes'])[-3:], (SKY, ORANGE, BLUE), strict=False):
    now = where(path, episodes=episodes)
    mean, std = (np.array([where(now, row=r)[name].mean() for r in rows]) for name in ('mean', 'std'))
    axis.fill_between(rows, mean - std, mean + std, color=colour, alpha=0.22, lw=0)
    axis.plot(rows, mean, color=colour, lw=1.8, label=f'{episodes:,} episodes')
  axis.plot(rows, [where(path, row=r)['q_star'][0] for r in rows], color=DARK, lw=1.6, ls=(0, (4, 2)), label='Q*')
  axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _draw_spreads(axis: Axes, cells: Table) -> None:
  """Std against visits, medians of bins, with the fitted law and with that of independent perturbations."""
  most, index_dim = cells['visits'].max(), presets.deep_sea().index_dim
  line = np.geomspace(0.8, 1.3 * most, 100)
  for sigma, colour, marker in zip(np.unique(cells['sigma'])[::-1], COLOURS, MARKERS, strict=False):
    one = where(cells, sigma=sigma)
    visits, std = binned(one['visits'], one['std'])
    law = fit_law(visits, std)
    label = f'σ = {sigma:g} (R² {law.r_squared:.2f})'
    axis.plot(np.where(visits > 0, visits, ZERO), std, marker, color=colour, ms=5, label=label)
    axis.plot(line, law.c / np.sqrt(line + law.beta), color=colour, lw=1.4)
    if sigma:
      axis.plot(line, sigma / np.sqrt(index_dim * line), color=colour, lw=1.4, ls=':')
  ticks = 10 ** np.arange(int(np.log10(most)) + 1)
  axis.set(xscale='log', yscale='log')
  axis.set_ylim(top=6 * axis.get_ylim()[1])  # room for the legend
  axis.set_xticks([ZERO, *ticks], ['0', *map(str, ticks)])
  axis.xaxis.set_minor_locator(NullLocator())


def _draw_gradients(axis: Axes, errors: Table) -> None:
  """Relative error of sampled gradients against the number of indices, and c / sqrt(N) through it."""
  num = np.unique(errors['num_indices'])
  for sigma, colour, marker in zip(np.unique(errors['sigma'])[::-1], COLOURS, MARKERS, strict=False):
    one = where(errors, sigma=sigma)
    mean = np.array([where(one, num_indices=n)['relative_error'].mean() for n in num])
    label = f'σ = {sigma:g}, slope {gradient_slope(one):.2f}'.replace('-', '−')
    axis.plot(num, mean, marker, color=colour, ms=6, mfc='none', mew=1.6, label=label)
    axis.plot(num, np.exp(np.mean(np.log(mean * np.sqrt(num)))) / np.sqrt(num), color=colour, lw=1.1)
  axis.plot([], [], color='#777777', lw=1.1, label='∝ 1 / √N')
  axis.set(xscale='log', yscale='log')
  axis.set_ylim(top=2.5 * axis.get_ylim()[1])
  axis.set_xticks(num, map(str, num))
  axis.xaxis.set_minor_locator(NullLocator())
