"""Checkpoints of a whole run through orbax: atomic, verified, and refused if they belong to another configuration.

A checkpoint is a folder named by its step, in which orbax keeps every array of the state, and beside it a manifest:
the configuration, what the run wants to remember, and a checksum of every file. The manifest is written last and in
one piece; a checkpoint without one, or whose files differ from it, does not count. So a process killed while saving
leaves the checkpoint before untouched.
"""

import functools
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.common.errors import CheckpointError, first_line
from experiments.common.files import write_atomically
from experiments.common.quiet import held_back
from experiments.common.settings import config_differences
from hyperagent_jax.config import ConfigError

# Of what this version writes. Manifests of version 0.1 have no number and are of format 1; from 3 on a manifest has a
# checksum of itself.
FORMAT = 3
# A part of an array's name now -> what it was in format 1.
_NAMES_IN_FORMAT_1 = {
  'learner/prior_params': 'learner/prior',
  'actor/xi': 'actor/index',
  'extras/prior_q': 'extras/prior',
}
_KEEP = 2  # the newest, and the one before it should the newest prove damaged


class Restored(NamedTuple):
  """A checkpoint that was read back."""

  step: int
  state: Any
  record: dict[str, Any]


def _is_key(x: Any) -> bool:
  return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _named(state: Any) -> dict[str, Any]:
  """Leaves by their path in the tree; empty ones, which orbax refuses, are left out."""
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in leaves if x.size}


def _to_arrays(state: Any) -> dict[str, np.ndarray]:
  """Named NumPy arrays; PRNG keys as their data."""
  return {name: np.asarray(jax.random.key_data(x) if _is_key(x) else x) for name, x in _named(state).items()}


def _name_in(name: str, number: int) -> str:
  """An array's name in checkpoints of a format."""
  if number == 1:
    for now, before in _NAMES_IN_FORMAT_1.items():
      name = f'/{name}/'.replace(f'/{now}/', f'/{before}/').strip('/')  # whole parts of the path
  return name


def _from_arrays(arrays: dict[str, np.ndarray], like: Any) -> Any:
  """A tree like `like`, whose arrays may be shapes except for keys, with these arrays."""

  def leaf(path: Any, x: Any) -> Any:
    if not x.size:
      return jnp.zeros(x.shape, x.dtype)
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    array, shape = arrays[name], jax.random.key_data(x).shape if _is_key(x) else x.shape
    if array.shape != shape:
      raise CheckpointError(f'{name} is of shape {array.shape} in the checkpoint, but {shape} in this run')
    dtype = jnp.uint32 if _is_key(x) else x.dtype
    if array.dtype != dtype:
      raise CheckpointError(f'{name} is of dtype {array.dtype} in the checkpoint, but {dtype} in this run')
    data = jnp.asarray(array)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x)) if _is_key(x) else data

  return jax.tree_util.tree_map_with_path(leaf, like)


@functools.lru_cache(maxsize=1024)
def _checksum(path: str, size: int, changed: int) -> int:
  """CRC-32 of a file, read once as long as it stays as it is."""
  del size, changed
  crc = 0
  with open(path, 'rb') as file:
    while block := file.read(1 << 22):
      crc = zlib.crc32(block, crc)
  return crc


def _checksums(folder: pathlib.Path) -> dict[str, int]:
  """CRC-32 of every file below a folder."""
  files = [(p, p.stat()) for p in sorted(folder.rglob('*')) if p.is_file()]
  return {str(p.relative_to(folder)): _checksum(str(p), s.st_size, s.st_mtime_ns) for p, s in files}


def _steps(folder: pathlib.Path) -> list[int]:
  """Steps of the checkpoints in a folder, whole or not, newest first; what else lies there is not ours."""
  if not folder.is_dir():
    return []
  ours = (re.fullmatch(r'([0-9]{12,})(\..*)?', path.name) for path in folder.iterdir())
  return sorted({int(match[1]) for match in ours if match}, reverse=True)


def _has_manifest(folder: pathlib.Path, step: int) -> bool:
  """Whether saving that checkpoint was finished; if not, the run was killed while saving it."""
  return (folder / f'{step:012d}.json').exists()


def _remove(folder: pathlib.Path, step: int) -> None:
  (folder / f'{step:012d}.json').unlink(missing_ok=True)
  for path in folder.glob(f'{step:012d}*'):  # with what orbax may have left behind when it was killed
    shutil.rmtree(path, ignore_errors=True)


def save(directory: str, step: int, state: Any, config: dict[str, Any], record: dict[str, Any]) -> None:
  """Saves a checkpoint and then removes all but the newest two.

  Args:
    directory: the run's folder of checkpoints.
    step: names the checkpoint; one of the same step is replaced.
    state: a tree of arrays; donated arrays must still be valid.
    config: what a run must share to resume from here.
    record: JSON-ready values to be remembered, such as the length of result files.

  Raises:
    CheckpointError: if it cannot be written; earlier checkpoints are intact.
  """
  folder = pathlib.Path(directory).absolute()
  path = folder / f'{step:012d}'
  arrays = _to_arrays(state)
  needed = sum(x.nbytes for x in arrays.values())
  try:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
      raise OSError(f'it takes up to {needed >> 20} MiB and {free >> 20} MiB are free')
    _remove(folder, step)
    with held_back(), ocp.PyTreeCheckpointer() as checkpointer:
      checkpointer.save(path, arrays)
    # The manifest comes last and at once: without it the checkpoint does not count.
    manifest = {'format': FORMAT, 'config': config, 'record': record, 'files': _checksums(path)}
    write_atomically(path.with_suffix('.json'), _manifest_text(manifest))
  except (OSError, ValueError, RuntimeError) as e:
    raise CheckpointError(f'{folder}: cannot save the checkpoint of step {step}: {first_line(e)}') from e
  finished = [s for s in _steps(folder) if s <= step and _has_manifest(folder, s)]
  # What is newer was left by a run that was resumed before it.
  for other in set(_steps(folder)) - set(finished[:_KEEP]):
    _remove(folder, other)


def _manifest_text(manifest: dict[str, Any]) -> bytes:
  """A manifest as it is written, with a checksum of all the rest of it."""
  manifest = json.loads(json.dumps(manifest))  # as it will be read, keys in words and tuples as lists
  return json.dumps({**manifest, 'checksum': _checksum_of(manifest)}, indent=1).encode()


def _checksum_of(manifest: dict[str, Any]) -> int:
  """CRC-32 of a manifest's entries; their order and layout do not matter."""
  rest = {name: value for name, value in manifest.items() if name != 'checksum'}
  return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _parse_manifest(data: bytes) -> dict[str, Any]:
  """A manifest from its text; ValueError if it is none, or damaged."""
  manifest = json.loads(data)
  if not isinstance(manifest, dict) or not {'config', 'record', 'files'} <= set(manifest):
    raise ValueError('its manifest is not one')
  number = manifest.setdefault('format', 1)
  if not isinstance(number, int) or number < 1:
    raise ValueError(f'its manifest is of format {number}')
  for name in ('config', 'record', 'files'):
    if not isinstance(manifest[name], dict):
      raise ValueError(f"its manifest's {name} is a {type(manifest[name]).__name__}")
  if (number >= 3 or 'checksum' in manifest) and manifest.get('checksum') != _checksum_of(manifest):
    raise ValueError('its manifest is not as it was written')
  return manifest


def _change_manifest(path: pathlib.Path, changes: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
  """Writes a manifest with changes, which are made of what is in it."""
  try:
    manifest = _parse_manifest(path.read_bytes())
    write_atomically(path, _manifest_text({**manifest, **changes(manifest)}))
  except (OSError, ValueError) as e:
    raise CheckpointError(f'{path}: cannot update the checkpoint: {first_line(e)}') from e


def update_record(directory: str, step: int, record: dict[str, Any]) -> None:
  """Replaces what a checkpoint remembers, in one piece; its arrays stay.

  Raises:
    CheckpointError: if there is no such checkpoint or it cannot be written; it then stands as it was.
  """
  _change_manifest(pathlib.Path(directory).absolute() / f'{step:012d}.json', lambda _: {'record': record})


def finish(directory: str, step: int, results: dict[str, Any]) -> None:
  """Removes the arrays of a checkpoint and every other one; what it remembers stays, with what came out.

  Args:
    directory: the folder of checkpoints of a task that has finished.
    step: of its newest checkpoint.
    results: added to what it remembers.

  Raises:
    CheckpointError: if there is no such checkpoint or it cannot be written.
  """
  folder = pathlib.Path(directory).absolute()
  _change_manifest(folder / f'{step:012d}.json', lambda old: {'files': {}, 'record': {**old['record'], **results}})
  for other in _steps(folder):
    if other != step:
      _remove(folder, other)
  shutil.rmtree(folder / f'{step:012d}', ignore_errors=True)


def _read_manifest(folder: pathlib.Path, step: int) -> dict[str, Any]:
  """The manifest of a checkpoint whose files are what was written.

  Raises:
    OSError or ValueError: if it is damaged or partial.
  """
  path = folder / f'{step:012d}'
  manifest = _parse_manifest(path.with_suffix('.json').read_bytes())
  found = _checksums(path) if manifest['files'] else {}  # none where they were dropped
  bad = sorted(name for name in set(found) | set(manifest['files']) if found.get(name) != manifest['files'].get(name))
  if bad:
    raise ValueError(f'{len(bad)} of its files are not as they were written, such as {bad[0]}')
  return manifest


def latest(directory: str) -> tuple[int, dict[str, Any]] | None:
  """Step and manifest (config, record, files) of the newest whole checkpoint, or None if there is none."""
  folder = pathlib.Path(directory).absolute()
  for step in _steps(folder):
    try:
      return step, _read_manifest(folder, step)
    except (OSError, ValueError):
      continue
  return None


def any_finished(directory: str) -> bool:
  """Whether saving any checkpoint there was ever finished."""
  folder = pathlib.Path(directory).absolute()
  return any(_has_manifest(folder, step) for step in _steps(folder))


def free_name(directory: str, step: int) -> int:
  """The step, or the next number above it that names no whole checkpoint: one is never written over another.

  A run that stops within an evaluation and goes on comes to save at the same time step again.
  """
  folder = pathlib.Path(directory).absolute()
  while True:
    try:
      _read_manifest(folder, step)
    except (OSError, ValueError):
      return step
    step += 1


def check_config(directory: str, manifest: dict[str, Any], config: dict[str, Any]) -> None:
  """Refuses a checkpoint of a later version or of another configuration.

  Raises:
    ConfigError: saying what this version reads, or naming the fields that differ.
  """
  if manifest['format'] > FORMAT:
    raise ConfigError(
      f'--resume: {directory} is of format {manifest["format"]}, which a later version wrote; must be at most {FORMAT}'
    )
  changed = config_differences(manifest['config'], config)
  if changed:
    raise ConfigError(f'--resume: {directory} was saved with other settings: {"; ".join(changed)}')


def restore(directory: str, like: Any, config: dict[str, Any], warn: Callable[[str], None]) -> Restored | None:
  """Reads the newest checkpoint that is whole.

  Args:
    directory: the run's folder of checkpoints.
    like: a state of the same structure.
    config: the present run's configuration.
    warn: told of each damaged or partial checkpoint that is skipped.

  Returns:
    What was saved, or None if saving one was never finished.

  Raises:
    ConfigError: if the checkpoint belongs to another configuration, naming the fields that differ.
    CheckpointError: if there are finished checkpoints and all are damaged.
  """
  folder = pathlib.Path(directory).absolute()
  steps = _steps(folder)
  for step in steps:
    path = folder / f'{step:012d}'
    try:
      manifest = _read_manifest(folder, step)
    except (OSError, ValueError) as e:
      warn(f'{path}: damaged or partial ({first_line(e)}); skipped for the one before')
      continue
    check_config(str(path), manifest, config)
    if not manifest['files']:
      raise CheckpointError(f'{path}: that run had finished, and its arrays were removed')
    return Restored(step, _read_state(path, like, manifest['format']), manifest['record'])
  if any(_has_manifest(folder, step) for step in steps):
    raise CheckpointError(f'{folder}: no checkpoint there is whole')
  return None


def _read_state(path: pathlib.Path, like: Any, number: int) -> Any:
  """The state in a checkpoint of a format; orbax is asked for arrays by the names that they have there."""
  names = {name: _name_in(name, number) for name in _named(like)}
  restore_args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names.values()}
  with ocp.PyTreeCheckpointer() as checkpointer:
    args = ocp.args.PyTreeRestore(dict.fromkeys(names.values(), 0), restore_args)
    stored = set(checkpointer.metadata(path).item_metadata.keys())
    missing = sorted(set(names.values()) - stored)
    if missing:
      raise CheckpointError(f'{path}: has no array {missing[0]}, which this version needs')
    found = checkpointer.restore(path, args=args)
  return _from_arrays({now: found[there] for now, there in names.items()}, like)
