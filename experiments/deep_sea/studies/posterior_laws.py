"""What a posterior's numbers are held against: the law of its spread, and that of the error of sampled gradients."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MIN_CELLS = 5  # of a bin

Table = dict[str, np.ndarray]


class Law(NamedTuple):
  """std = c / sqrt(n + beta), and how well it holds."""

  c: float
  beta: float
  r_squared: float  # of log std
  slope: float  # of log std against log n, n >= 1


def concatenate(tables: Sequence[Mapping[str, Any]]) -> Table:
  """One table below the other; a column may be a single value, the same in all of a table's rows."""
  tables = [dict(zip(table, np.broadcast_arrays(*table.values()), strict=True)) for table in tables]
  return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def where(table: Table, **values: Any) -> Table:
  """The rows with these values."""
  chosen = np.all([table[name] == value for name, value in values.items()], axis=0)
  return {name: column[chosen] for name, column in table.items()}


def binned(visits: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Median visits and std of bins half an octave wide, and of no visits; bins with few members are left out."""
  bins = np.digitize(visits, 2.0 ** np.arange(0, 30, 0.5))
  kept = [bins == i for i in np.unique(bins) if np.sum(bins == i) >= MIN_CELLS]
  return np.array([np.median(visits[k]) for k in kept]), np.array([np.median(std[k]) for k in kept])


def fit_law(visits: np.ndarray, std: np.ndarray) -> Law:
  """Least squares on the log std of bins, where for every beta of a grid the best c is a mean."""
  betas, log_std, some = np.logspace(-6, 4, 5001), np.log(std), visits > 0
  if np.sum(some) < 3:
    return Law(*[np.nan] * 4)
  log_c = log_std + 0.5 * np.log(visits + betas[:, None])  # [betas, bins]
  errors = np.sum(np.square(log_c - log_c.mean(axis=1, keepdims=True)), axis=1)
  best = np.argmin(errors)
  r_squared = 1 - errors[best] / np.sum(np.square(log_std - log_std.mean()))
  slope = np.polyfit(np.log(visits[some]), log_std[some], 1)[0]
  return Law(np.exp(log_c[best].mean()), betas[best], r_squared, slope)


def gradient_slope(table: Table) -> float:
  """The slope of log relative error against log N; -1/2 is that of a mean of N independent samples."""
  return np.polyfit(np.log(table['num_indices']), np.log(table['relative_error']), 1)[0]
