"""Settings that every test shares; they must come before the first use of a JAX device."""

import os
import shutil
import tempfile
from importlib import metadata

os.environ.setdefault('OMP_NUM_THREADS', '1')  # a thread per core of each library would only get in the way
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The tests compile much and compute little: LLVM's optimisations cost twice the time of everything else, and XLA's
# newer way to write loops for it as much again. Neither changes what is fused and what is written in place.
flags = os.environ.get('XLA_FLAGS', '')
quick = {'xla_backend_optimization_level': '0'}
if tuple(map(int, metadata.version('jaxlib').split('.')[:2])) < (0, 11) and 'AS_BINARIES_COMPILE' not in os.environ:
  # Later ones know no other way.
  quick['xla_cpu_use_fusion_emitters'] = 'false'
for name, value in quick.items():
  if name not in flags:
    flags += f' --{name}={value}'
os.environ['XLA_FLAGS'] = flags + ' --xla_cpu_multi_thread_eigen=false'

# What one worker or one process of a binary has compiled, the others need not.
cache = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  cache = os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='compiled_')
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.05')

import jax  # noqa: E402, after the settings above

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_num_cpu_devices', 2)


def pytest_unconfigure(config):
  """Removes the compiled programs, in the process that made their folder."""
  del config
  if cache:
    shutil.rmtree(cache, ignore_errors=True)
