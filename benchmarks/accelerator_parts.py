"""Parts of `benchmarks.accelerator` without emulators: what the device can do, and updates of the networks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hyperagent_jax as ha
from benchmarks import programs, time_line, timing
from benchmarks.accelerator_rows import FILE, Case, Session, read, run_cases, seconds_per_step
from hyperagent_jax.envs import deep_sea
from hyperagent_jax.torsos import DATA_EFFICIENT, NATURE, nested_windows
from hyperagent_jax.types import LEARNER_AXES, Extras, HyperQ, LearnerState, Transition

# How float32 products are computed: 'highest' is float32 throughout, 'tensorfloat32' the matrix units' short float32,
# 'default' what JAX does unless told otherwise.
PRECISIONS = {'float32': 'highest', 'tf32': 'tensorfloat32', 'default': 'default'}
# The same with XLA putting whole loops into one graph of the device, so that no step waits for the host.
LOOP_GRAPHS = {
  'xla_gpu_enable_command_buffer': 'FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION'
}


# ---------------------------------------------------------------------------------------------------------------- facts


def matrix_rate(session: Session, name: str) -> Case:
  """Operations per second of a large matrix product on random data."""
  size = 256 if session.reduced else 8192

  def prepare() -> Callable[[], None]:
    dtype = jnp.bfloat16 if name == 'bfloat16' else jnp.float32
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    with jax.default_matmul_precision(PRECISIONS.get(name, 'default')):
      product = jax.jit(jnp.matmul).lower(a, b).compile()
    run = lambda num: [product(a, b) for _ in range(num)][-1]
    measure = lambda: 2 * size**3 / seconds_per_step(run, session.reduced, 0.3) / 1e12
    return lambda: session.write(f'matrix product of {size}: {name}', measure(), 'TFLOP/s')

  return Case(f'matrix product: {name}', prepare)


def bandwidth(session: Session) -> Case:
  """Bytes read and written per second."""

  def prepare() -> Callable[[], None]:
    x = jnp.ones((2**20 if session.reduced else 2**29,), jnp.float32)
    f = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()

    def run(num: int) -> Any:
      nonlocal x
      for _ in range(num):
        x = f(x)
      return x

    measure = lambda: 2 * x.nbytes / seconds_per_step(run, session.reduced, 0.3) / 1e12
    return lambda: session.write('memory, bytes read and written', measure(), 'TB/s')

  return Case('memory', prepare)


def loop_times(session: Session, name: str, options: dict[str, str] | None = None) -> Case:
  """What a step of a compiled loop costs besides its arithmetic: kernels that wait for each other, a branch."""

  def program(num_kernels: int, branch: bool) -> Callable[[int], Any]:
    def body(i: jax.Array, x: jax.Array) -> jax.Array:
      for _ in range(num_kernels):
        x = jnp.tanh(x @ x)  # a product is not fused with the next one
      if branch:
        x = jax.lax.cond(i % 4 == 0, lambda: jnp.sin(x @ x), lambda: x)
      return x

    loop = lambda x, num: jax.lax.fori_loop(0, num, body, x)
    x = jnp.eye(64)
    compiled = jax.jit(loop, compiler_options=options).lower(x, jnp.int32(1)).compile()
    return lambda num: compiled(x, jnp.int32(num))

  def prepare() -> Callable[[], None]:
    few, many, branch = program(1, False), program(33, False), program(1, True)

    def measure() -> None:
      times = [1e6 * seconds_per_step(run, session.reduced, 0.2) for run in (few, many, branch)]
      session.write(f'a step of a loop with one small product{name}', times[0], 'us')
      session.write(f'each small product more{name}', (times[1] - times[0]) / 32, 'us')
      session.write(f'a branch more{name}', times[2] - times[0], 'us')

    return measure

  return Case(f'loops{name}', prepare)


def learns_deep_sea(session: Session, platform: str) -> Case:
  """The same program on either platform: episodes until a seed's greedy episodes all end at the treasure."""
  size, num_chunks = (4, 2) if session.reduced else (10, 8)

  def prepare() -> Callable[[], None]:
    device = jax.local_devices(backend=platform)[0]
    with jax.default_device(device):
      config = dataclasses.replace(ha.presets.deep_sea(size), replay_capacity=5_000)
      setup = programs.make_setup(config, 2, config.replay_capacity, devices=[device], seed_axis='vmap')
    return lambda: measure(setup, device)

  def measure(setup: programs.Setup, device: jax.Device) -> None:
    with jax.default_device(device):
      state, done, returns = setup.state, setup.num_interactions, np.zeros(2)
      solved: dict[int, int] = {}
      for _ in range(num_chunks):
        state = setup.runner.run(state, ha.steps_for(done + 500, size) - ha.steps_for(done, size))
        done += 500
        returns = np.asarray(setup.runner.evaluate(state).returns).mean(1)
        for i in np.flatnonzero(returns >= deep_sea.solved_return(size)):
          solved.setdefault(int(i), int(state.statistics.num_episodes[i]))
    note = f'{platform}; return {", ".join(f"{x:.3f}" for x in returns)} after {int(state.statistics.num_episodes[0])}'
    for seed in range(2):
      session.write(f'DeepSea {size}, seed {seed}: episodes to solve', solved.get(seed, -1), 'episodes', 2, note)

  return Case(f'learning on {platform}', prepare)


def facts(session: Session) -> int:
  """What the device can do, and whether the same program learns the same on it."""
  platform = jax.devices()[0].platform
  session.write('device', jax.devices()[0].device_kind, '', note=f'jax {jax.__version__}, platform {platform}')
  cases = [
    *(matrix_rate(session, name) for name in (*PRECISIONS, 'bfloat16')),
    bandwidth(session),
    loop_times(session, ''),
    *(learns_deep_sea(session, name) for name in dict.fromkeys((platform, 'cpu'))),
  ]
  return run_cases(session, cases)


def graphs(session: Session) -> int:
  """Loops as one graph of the device. Apart from the others: a compiler's fault here ends the process."""
  if jax.devices()[0].platform == 'cpu' and not session.reduced:
    session.leave_out('graphs', 'a CPU has none')
    return 0
  size, num_seeds = (4, 2) if session.reduced else (20, 16)

  def program(name: str, options: dict[str, str] | None) -> Case:
    def prepare() -> Callable[[], None]:
      setup = programs.make_setup(ha.presets.deep_sea(size), num_seeds, capacity=20_000)
      compiled = time_line.lower_training(setup, options).compile()
      run = functools.partial(time_line.training(setup), compiled)
      speed = lambda: num_seeds * size / (size + 1) / seconds_per_step(run, session.reduced)
      return lambda: session.write(f'DeepSea {size}{name}', speed(), 'interactions/s', num_seeds)

    return Case(f'DeepSea {size}{name}', prepare)

  name = ', loops as graphs'
  return run_cases(session, [loop_times(session, name, LOOP_GRAPHS), program('', None), program(name, LOOP_GRAPHS)])


# -------------------------------------------------------------------------------------------------------------- updates


class Update(NamedTuple):
  """A case of `updates`."""

  torso: str
  method: str  # convolutions, products, or windows: products of frames that replay keeps cut
  precision: str
  num_seeds: int


def update_config(torso: str, method: str, precision: str = 'default', batch_size: int = 32) -> ha.HyperAgentConfig:
  """Atari's agent with a torso computed in some way."""
  return dataclasses.replace(
    ha.presets.atari(),
    torso=torso,
    convolution_method='products' if method == 'windows' else method,
    frame_layout='windows' if method == 'windows' else 'pixels',
    compute_dtype='bfloat16' if precision == 'bfloat16' else 'float32',
    batch_size=batch_size,
    replay_capacity=20_000,
  )


def update_flops(config: ha.HyperAgentConfig, num_actions: int) -> int:
  """Operations of one seed's update: three forward passes, and a backward one without the pixels' gradient."""
  layers = NATURE if config.torso == 'nature' else DATA_EFFICIENT
  side = 84
  for layer in layers:
    side = (side - layer.size) // layer.stride + 1
  width = side**2 * layers[-1].features
  each: list[int] = []
  for i in reversed(range(len(layers))):  # backwards: windows that the next layer does not reach need not be computed
    layer, channels = layers[i], layers[i - 1].features if i else config.frame_stack
    each.insert(0, side**2 * layer.size**2 * channels * layer.features)
    side = (side - 1) * layer.stride + layer.size
  for hidden in (*config.hidden_sizes, num_actions * (1 + config.index_dim)):
    each.append(width * hidden)
    width = hidden
  return 2 * config.batch_size * (5 * sum(each) - each[0])


def update_case(session: Session, case: Update, rates: dict[str, float], num_actions: int = 6) -> Case:
  """The time of an update of all seeds, inside a compiled loop as in training."""
  torso, method, precision, num_seeds = case
  config = update_config(torso, method, precision, 4 if session.reduced else 32)
  network = ha.make_network(config, num_actions)
  agent = ha.make_hyperagent(network, ha.make_optimizer(config), config)
  num_batches, name = 4, f'update, {torso}, {method}, {precision}'

  rng = np.random.default_rng(0)  # on the host: compiling a program that draws so much would take longer
  leading = (num_batches, num_seeds, config.batch_size)

  def batches() -> Transition:
    screens = [rng.integers(0, 256, (*leading, 4, 84, 84), np.uint8) for _ in range(2)]
    if method == 'windows':
      cut = jax.jit(jax.vmap(lambda x: nested_windows(x, DATA_EFFICIENT)))
      screens = [cut(x.reshape(-1, 4, 84, 84)) for x in screens]
      screens = [x.reshape(*leading, *x.shape[1:]) for x in screens]
    normal: Any = lambda *shape: 0.1 * rng.standard_normal((*leading, *shape), np.float32)
    prior = lambda: HyperQ(normal(num_actions), normal(num_actions, config.index_dim))
    extras = [Extras(noise=normal(config.index_dim), prior_q=prior()) for _ in range(2)]
    action: Any = rng.integers(0, num_actions, leading, np.int32)  # all of this becomes arrays of the device below
    discount: Any = np.full(leading, 0.95, np.float32)
    return jax.device_put(Transition(screens[0], action, normal(), discount, screens[1], *extras))

  update = jax.vmap(agent.update, in_axes=(LEARNER_AXES, 0, 0, None), out_axes=(LEARNER_AXES, 0))

  def loop(learner: LearnerState, batches: Any, draws: Any, num: jax.Array) -> Any:
    def body(i: jax.Array, carry: Any) -> Any:
      learner, after = carry
      batch, drawn = (timing.pick(x, i, after) for x in (batches, draws))
      learner, metrics = update(learner, batch, drawn, jnp.int32(10_000))
      return learner, jnp.sum(metrics['loss'])

    return jax.lax.fori_loop(0, num, body, (learner, jnp.zeros(())))

  @jax.jit
  def others(key: jax.Array, observation: jax.Array) -> Any:
    keys = jax.random.split(key, (num_batches, num_seeds))
    draws = jax.vmap(jax.vmap(lambda k: agent.draw_update(k, config.batch_size)))(keys)
    return jax.vmap(lambda k: agent.init(k, observation), out_axes=LEARNER_AXES)(keys[0]), draws

  def prepare() -> Callable[[], None]:
    batch = batches()
    learner, draws = others(jax.random.key(0), batch.o_t[0, 0, 0])
    arguments = (learner, batch, draws)
    with jax.default_matmul_precision(PRECISIONS.get(precision, 'default')):
      compiled = jax.jit(loop).lower(*arguments, jnp.int32(1)).compile()
    run = lambda num: compiled(*arguments, jnp.int32(num))
    return lambda: measure(run)

  def measure(run: Callable[[int], Any]) -> None:
    seconds = seconds_per_step(run, session.reduced, 0.4)
    flops = num_seeds * update_flops(config, num_actions)
    session.write(name, 1e6 * seconds, 'us', num_seeds, f'{flops / seconds / 1e12:.3g} TFLOP/s')
    if precision in rates:
      limit = flops / (1e12 * rates[precision])
      session.write(f'{name}: time / limit of the matrix rate', seconds / limit, 'ratio', num_seeds)

  return Case(f'{name}, {num_seeds} seeds', prepare)


def update_cases(reduced: bool) -> list[Update]:
  """The cases in their order of interest."""
  if reduced:
    return [Update('data_efficient', 'windows', 'tf32', 2), Update('nature', 'products', 'bfloat16', 1)]
  methods = {'nature': ('convolutions', 'products'), 'data_efficient': ('convolutions', 'windows')}
  order: list[tuple[str, int, tuple[str, ...]]] = [
    ('nature', 1, ('tf32',)),
    ('data_efficient', 1, ('tf32',)),
    ('data_efficient', 16, ('tf32',)),
  ]
  order += [('nature', 16, ('tf32', 'bfloat16')), ('nature', 64, ('tf32',)), ('data_efficient', 64, ('tf32',))]
  order += [('nature', 4, ('tf32',)), ('data_efficient', 4, ('tf32',)), ('data_efficient', 16, ('bfloat16',))]
  order += [(torso, num, ('bfloat16', 'float32')) for num in (16, 64, 1, 4) for torso in methods]
  cases = [Update(t, m, p, num) for t, num, ps in order for p in ps for m in methods[t]]
  return list(dict.fromkeys(cases))


def updates(session: Session) -> int:
  """Updates of HyperAgent's networks for several seeds at once."""
  session.leave_out('update, impala', 'there is no such torso yet')
  facts = [row for row in read(session.folder / FILE) if row['hardware'] == session.hardware]
  rates = {r['what'].split(': ')[1]: float(r['value']) for r in facts if r['unit'] == 'TFLOP/s'}
  cases = [update_case(session, case, rates) for case in update_cases(session.reduced)]
  return run_cases(session, cases, 1 if session.reduced else 6)
