"""HyperAgent, or a rival, on bsuite: all of it, a tag, an experiment or an id; writes bsuite's own CSV files.

    python -m experiments.bsuite --bsuite_id=SWEEP
    python -m experiments.bsuite --bsuite_id=cartpole_noise,deep_sea/0 --agent=ensemble_plus

Ids of one experiment run in one XLA program where their observations have one shape. As bsuite prescribes, what is
scored is training itself: so many episodes for each id, no separate evaluation.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from experiments import agents
from experiments import run as run_lib
from experiments.bsuite_host import train_on_host
from experiments.bsuite_training import (
  BsuiteConfig,
  Place,
  Times,
  batches,
  num_episodes,
  shows_cells,
  train_batches,
  unfinished,
)
from experiments.run import OutputConfig, warn
from hyperagent_jax import config, metrics, presets
from hyperagent_jax.baselines import SYSTEMS, RivalConfig
from hyperagent_jax.baselines.config import refuse_unread
from hyperagent_jax.bsuite_scores import LOG_FILES
from hyperagent_jax.config import ConfigError, HyperAgentConfig
from hyperagent_jax.envs import bsuite as envs
from hyperagent_jax.seeds import num_cores

# What the environment fixes, and what is for screens only.
_NOT_FLAGS = (
  *('torso', 'grid_size', 'prior_storage', 'num_envs', 'max_abs_reward'),
  *('pixel_divisor', 'normalize_features', 'convolution_method', 'compute_dtype', 'frame_layout'),
)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Makes a flag of every setting."""
  agents.define_flags(presets.bsuite(), flag_values, skip=_NOT_FLAGS)
  config.define_flags(BsuiteConfig(), flag_values)
  config.define_flags(OutputConfig(), flag_values, skip=('tensorboard',))
  flags.DEFINE_list('bsuite_id', ['SWEEP'], 'Ids, experiments, tags, or SWEEP for all.', flag_values=flag_values)
  text = (
    'Of experiments, tags and SWEEP only ids whose numbers are multiples of it: 4 is a quarter that covers the whole.'
  )
  flags.DEFINE_integer('every', 1, text, flag_values=flag_values)
  text = "'fused': in XLA; 'host': bsuite's own environments, one id after the other, of which none is checkpointed."
  flags.DEFINE_enum('driver', 'fused', ['fused', 'host'], text, flag_values=flag_values)
  flags.adopt_module_key_flags(config, flag_values)


def ids_of(words: Sequence[str], every: int = 1) -> list[str]:
  """The ids that a list of words stands for, each once, in bsuite's order.

  Args:
    words: ids, experiments, tags, or SWEEP.
    every: k, of what is not named as an id only the ids 0, k, 2 k ... of each experiment.

  Raises:
    ConfigError: if a word names nothing, or k is below 1.
  """
  if every < 1:
    raise ConfigError(f'--every={every}: must be at least 1')
  taken = lambda word, bsuite_id: '/' in word or int(bsuite_id.split('/')[1]) % every == 0
  chosen = {bsuite_id for word in words for bsuite_id in envs.parse_ids(word) if taken(word, bsuite_id)}
  if not chosen:
    raise ConfigError('--bsuite_id=: must name an id, an experiment, a tag, or SWEEP')
  return [bsuite_id for bsuite_id in envs.parse_ids('SWEEP') if bsuite_id in chosen]


def without_mnist_if_missing(ids: Sequence[str], directory: str) -> list[str]:
  """The ids that can be run: those of mnist are left out, and named, where its data are missing.

  Raises:
    ConfigError: if nothing is left.
  """
  of_mnist = [bsuite_id for bsuite_id in ids if bsuite_id.startswith('mnist')]
  if not of_mnist:
    return list(ids)
  try:
    envs.load_mnist(directory)
    return list(ids)
  except ConfigError as error:
    left = [bsuite_id for bsuite_id in ids if bsuite_id not in of_mnist]
    if not left:
      raise
    warn(f'{error}; skipped: {", ".join(dict.fromkeys(i.split("/")[0] for i in of_mnist))}')
    return left


def rival_preset(name: str) -> RivalConfig:
  """A rival's settings on bsuite: its own of DeepSea, but for what HyperAgent changes from there to here.

  It changes what had HyperAgent's value there. Of a random action epsilon-greedy agents take a constant 0.05, as
  bsuite's own DQN: training is scored, and DeepSea's decay would outlast all of bandit.
  """
  rival, before, after = SYSTEMS[name].deep_sea(20), presets.deep_sea(20), presets.bsuite()
  changed = {k: v for k, v in vars(after).items() if v != getattr(before, k) == getattr(rival, k)}
  return dataclasses.replace(rival, **changed, epsilon_final=0.05, epsilon_steps=1)


def read_settings(flag_values: flags.FlagValues = flags.FLAGS) -> tuple[HyperAgentConfig, BsuiteConfig, OutputConfig]:
  """All flags as validated settings.

  Raises:
    ConfigError: on the first that cannot be used.
  """
  run, output = (config.from_flags(c, flag_values) for c in (BsuiteConfig(), OutputConfig()))
  for settings in (run, output):
    config.validate_fields(settings)
  preset = presets.bsuite() if run.agent == 'hyperagent' else rival_preset(run.agent)
  return agents.read_settings(run.agent, preset, flag_values), run, output


def import_report() -> Callable[[Mapping[str, pathlib.Path], pathlib.Path], list[str]]:
  """`bsuite_report.write_report`, looked up before training so that a missing package is known before.

  Raises:
    ConfigError: if matplotlib is not installed.
  """
  try:
    from experiments import bsuite_report
  except ImportError as e:
    raise ConfigError(f'--figures: {e.name} is not installed; install it or pass --nofigures') from None
  return bsuite_report.write_report


def summary(times: dict[str, Times]) -> str:
  """What each batch took."""
  lines = [
    (name, f'{t.steps:,}', metrics.format_duration(t.seconds), f'{t.steps_per_second:,.0f}' if t.seconds else '-')
    for name, t in times.items()
  ]
  note = 'Time steps of all ids of a batch, some after the last episode, and the time they took without compilation.'
  return metrics.format_table(('batch', 'time steps', 'wall-clock', 'steps/s'), lines) + '\n' + note


def _use_cores(output: OutputConfig) -> None:
  """Makes a device of each CPU core: most batches have more ids than that, and any number can be spread."""
  run_lib.make_devices(output.num_devices, num_cores())


def main() -> None:
  """Trains on all ids that are not finished, batch by batch, then scores and draws them.

  Raises:
    FloatingPointError: in the end, if the loss of an id was not finite.
  """
  values = flags.FLAGS
  agent, run, output = read_settings()
  if values.driver == 'host':
    unread = {name for name in ('seed_axis', 'num_devices', 'checkpoint_minutes') if values[name].present}
    refuse_unread(unread, frozenset(), '--driver=host')
  ids = without_mnist_if_missing(ids_of(values.bsuite_id, values.every), run.mnist_dir)
  _use_cores(output)
  todo = list(batches(ids, run.mnist_dir))
  for batch in todo:
    num_episodes(batch.tasks[0], run)
  if agent.frame_stack > 1 and all(shows_cells(batch.tasks[0]) for batch in todo):
    first = todo[0].tasks[0].bsuite_id
    raise ConfigError(f'--frame_stack={agent.frame_stack}: must be 1 on {first}, whose cells hide nothing')
  write_report = import_report() if output.figures else None
  settings = {**agents.to_dict(run.agent, agent), **run_lib.settings_of(run), 'driver': values.driver}
  del settings['checkpoint_minutes']  # may change when a run is gone on with
  folder = run_lib.open_folder(output, 'bsuite', settings, results=LOG_FILES)
  place = Place(folder, settings, output, run_lib.Signals(output.max_minutes), metrics.Progress())
  left = unfinished(todo, run, folder)
  train = train_on_host if values.driver == 'host' else train_batches
  times = {batch.name: took for batch, took in train(left, agent, run, place)}
  print(summary(times))
  if write_report is not None:
    for path in write_report({run.agent: folder}, folder):
      print(path)
  print(f'results: {folder}')
  diverged = ', '.join(bsuite_id for took in times.values() for bsuite_id in took.nonfinite)
  if diverged:
    raise FloatingPointError(f'{diverged}: the loss was not finite; the scores are of what was played all the same')


if __name__ == '__main__':
  define_flags()
  run_lib.start_main(main, 'bsuite')
