"""Torsos: one observation to the features of its last hidden layer, ReLU after every layer (section 2).

On a CPU, XLA runs convolutions inside a compiled loop, and most of all their gradients, 10 to 20 times slower than
matrix products of the same size. On a CUDA device the convolutions of several seeds, each with weights of its own,
become grouped ones, some 3 times slower than products. So the torsos for screens can compute the same layers as
products (`benchmarks/` has the figures).
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hyperagent_jax.types import Array

# Untruncated, as in the published code.
glorot_normal = nn.initializers.variance_scaling(1.0, 'fan_avg', 'normal')


def deep_sea_row(observation: Array, size: int) -> Array:
  """The look-up row of a DeepSea state: its rank among the N (N + 1) / 2 reachable cells.

  A cell row * N + column is reachable where column <= row. Anything else, such as the code N^2 of the all-zero
  observation, maps to the rank one past the end, which look-ups with `mode='fill'` answer with zeros.
  """
  row, column = observation // size, observation % size
  num_cells = size * (size + 1) // 2
  return jnp.where((row < size) & (column <= row), row * (row + 1) // 2 + column, num_cells)


def deep_sea_observations(size: int) -> np.ndarray:
  """The integer observation of every look-up row in order, and last the all-zero observation's, N^2."""
  row, column = np.tril_indices(size)
  return np.append(row * size + column, size * size).astype(np.int32)


class DeepSeaTorso(nn.Module):
  """An MLP on the one-hot N x N observation, given as an integer: the first layer is a row look-up.

  Only reachable cells have a row. Unreachable inputs are never 1, so leaving them out is exact; the initial variance
  2 / (N^2 + H) is that of the whole N^2 x H Glorot matrix.
  """

  size: int
  hidden_sizes: tuple[int, ...]

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [] int32 -> [H]
    """Features of one state."""
    width = self.hidden_sizes[0]
    init = nn.initializers.normal((2.0 / (self.size**2 + width)) ** 0.5)
    rows = self.param('rows', init, (self.size * (self.size + 1) // 2, width))
    bias = self.param('bias', nn.initializers.zeros, (width,))
    x = nn.relu(rows.at[deep_sea_row(observation, self.size)].get(mode='fill', fill_value=0.0) + bias)
    for width in self.hidden_sizes[1:]:
      x = nn.relu(nn.Dense(width, kernel_init=glorot_normal)(x))
    return x


class MLPTorso(nn.Module):
  """An MLP on the flattened observation, ReLU after every layer.

  Raises:
    ValueError: if an observation is a pytree, or one integer, which would count as a quantity.
  """

  hidden_sizes: tuple[int, ...]

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [...] -> [H]
    """Features of one observation."""
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(observation)):
      kind = type(observation).__name__
      raise ValueError(f'observation is a {kind}: an MLP takes one array; join_with_prior takes a torso of your own')
    observation = jnp.asarray(observation)
    if observation.size == 0:
      raise ValueError(f'observation is of shape {observation.shape}: there is nothing in it')
    if observation.ndim == 0 and jnp.issubdtype(observation.dtype, jnp.integer):
      raise ValueError('observation is one integer: an MLP would take it for a quantity; it must be an array')
    x = jnp.ravel(observation).astype(jnp.float32)
    for width in self.hidden_sizes:
      x = nn.relu(nn.Dense(width, kernel_init=glorot_normal)(x))
    return x


class ConvLayer(NamedTuple):
  """A convolution without padding; `size` is a multiple of `stride`."""

  features: int
  size: int
  stride: int


# Mnih et al., 2015, and the smaller one of van Hasselt et al., 2019, whose windows do not overlap.
NATURE = (ConvLayer(32, 8, 4), ConvLayer(64, 4, 2), ConvLayer(64, 3, 1))
DATA_EFFICIENT = (ConvLayer(32, 5, 5), ConvLayer(64, 5, 5))


def convolve(x: Array, kernel: Array, stride: int) -> Array:
  """An ordinary convolution without padding, [H, W, C] x [k, k, C, O] -> [P, Q, O]."""
  dims = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x[None], kernel, (stride, stride), 'VALID', dimension_numbers=dims)[0]


def convolve_by_products(x: Array, kernel: Array, stride: int) -> Array:
  """The same as one matrix product: blocks of stride x stride pixels become channels, windows of blocks rows."""
  size, num_in, num_out = kernel.shape[0], kernel.shape[2], kernel.shape[3]
  reach = size // stride  # blocks that a window spans
  p, q = ((n - size) // stride + 1 for n in x.shape[:2])
  rows, columns = p + reach - 1, q + reach - 1  # blocks in use
  x = x[: rows * stride, : columns * stride].reshape(rows, stride, columns, stride, num_in)
  x = x.transpose(0, 2, 1, 3, 4).reshape(rows, columns, stride * stride * num_in)
  windows = [x[i : i + p, j : j + q] for i in range(reach) for j in range(reach)]
  x = jnp.concatenate(windows, axis=-1) if reach > 1 else x  # [P, Q, k k C]
  # [k, k, C, O] in the order of a window: block row, block column, row in the block, column in the block, channel.
  kernel = kernel.reshape(reach, stride, reach, stride, num_in, num_out).transpose(0, 2, 1, 3, 4, 5)
  return (x.reshape(p * q, -1) @ kernel.reshape(-1, num_out)).reshape(p, q, num_out)


def nested_windows(frames: Array, layers: tuple[ConvLayer, ...]) -> Array:
  """Pixels of [F, h, w] frames in the order in which layers of windows that do not overlap consume them.

  Returns:
    [R, F, k, k], an entry for each window of the first layer that the last layer's windows reach, with the entries of
    one window of the next layer together, and so on: each layer then is a reshape and one product.
  """
  sizes = [layer.size for layer in layers]
  num_frames = frames.shape[0]
  whole = int(np.prod(sizes))
  rows, columns = (n // whole for n in frames.shape[1:])
  x = frames[:, : rows * whole, : columns * whole]
  inner = sizes[::-1]  # a pixel's coordinate, from the last layer's window to the pixel in the first layer's
  x = x.reshape(num_frames, rows, *inner, columns, *inner)
  n = len(layers)
  row_axes, column_axes = range(1, n + 2), range(n + 2, 2 * n + 3)
  order = [a for pair in zip(row_axes, column_axes, strict=True) for a in pair]
  order.insert(2 * n, 0)  # frames just outside the first layer's own rows and columns
  return x.transpose(order).reshape(-1, num_frames, sizes[0], sizes[0])


def _activate(x: Array, bias: Array) -> Array:  # [..., O], [O]
  return nn.relu(x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)))


def least_side(layers: tuple[ConvLayer, ...]) -> int:
  """Pixels that a screen must have each way for layers to give a feature."""
  side = 1
  for layer in reversed(layers):
    side = (side - 1) * layer.stride + layer.size
  return side


def _check_screens(shape: tuple[int, ...], layers: tuple[ConvLayer, ...]) -> None:
  """Refuses what is no stack of frames that are large enough: [F, h, w], or [R, F, k, k] where they are cut."""
  least = least_side(layers)
  is_stack = len(shape) == 3 and min(shape[1:]) >= least and shape[0] >= 1
  if not is_stack and not (len(shape) == 4 and min(shape) >= 1):
    raise ValueError(
      f'observation is of shape {shape}: must be [frames, height, width] with a height and width of at least {least}'
    )


class ScreenTorso(nn.Module):
  """Convolutions over a stack of frames, then an MLP.

  Frames come as they are, [F, h, w], or cut into `nested_windows`, [R, F, k, k], which is work done once for a frame
  that replay keeps. `method` is 'products', 'convolutions', or 'auto': products on CPU and CUDA, where they
  are faster, and convolutions elsewhere. All give the same numbers to rounding.
  """

  layers: tuple[ConvLayer, ...]
  hidden_sizes: tuple[int, ...]
  pixel_divisor: float = 255.0
  normalize_features: bool = False  # to [0, 1], by the least and greatest of an example's convolutional features
  method: str = 'auto'
  dtype: str = 'float32'  # of the convolutions and their gradients; parameters and what follows are float32

  @nn.compact
  def __call__(self, observation: Array) -> Array:  # [F, h, w] or [R, F, k, k] uint8 -> [H]
    """Features of one stack of frames."""
    is_cut = observation.ndim == 4
    _check_screens(observation.shape, self.layers)
    num_in, kernels, biases = observation.shape[1 if is_cut else 0], [], []
    for i, layer in enumerate(self.layers):
      shape = (layer.size, layer.size, num_in, layer.features)
      kernels.append(self.param(f'kernel_{i}', glorot_normal, shape))
      biases.append(self.param(f'bias_{i}', nn.initializers.zeros, (layer.features,)))
      num_in = layer.features
    # Scaling the first kernel is scaling the pixels, and cheaper.
    kernels[0] = kernels[0] / self.pixel_divisor
    kernels = [k.astype(self.dtype) for k in kernels]
    convolutions = self._products_of_windows if is_cut else self._convolutions()
    x = convolutions(observation, kernels, biases).astype(jnp.float32)
    if self.normalize_features:
      low, high = jnp.min(x), jnp.max(x)
      x = (x - low) / (high - low + 1e-8)
    for width in self.hidden_sizes:
      x = nn.relu(nn.Dense(width, kernel_init=glorot_normal)(x))
    return x

  def _convolutions(self) -> Callable[[Array, list[Array], list[Array]], Array]:
    """The configured way from a stack of frames to flat convolutional features, in row-major order of [P, Q, O]."""
    overlap = any(layer.size != layer.stride for layer in self.layers)
    cut = lambda x, *weights: self._products_of_windows(nested_windows(x, self.layers), *weights)
    products = self._by_layers(convolve_by_products) if overlap else cut
    direct = self._by_layers(convolve)
    if self.method == 'auto':
      return lambda *args: jax.lax.platform_dependent(*args, cpu=products, cuda=products, default=direct)
    return products if self.method == 'products' else direct

  def _by_layers(self, convolution: Callable[[Array, Array, int], Array]) -> Callable[..., Array]:
    def apply(observation: Array, kernels: list[Array], biases: list[Array]) -> Array:
      x = observation.transpose(1, 2, 0).astype(self.dtype)
      for layer, kernel, bias in zip(self.layers, kernels, biases, strict=True):
        x = _activate(convolution(x, kernel, layer.stride), bias)
      return x.ravel()

    return apply

  def _products_of_windows(self, windows: Array, kernels: list[Array], biases: list[Array]) -> Array:
    x = windows.astype(self.dtype)
    kernels = [kernels[0].transpose(2, 0, 1, 3), *kernels[1:]]  # frame by frame, as the pixels come
    for kernel, bias in zip(kernels, biases, strict=True):
      flat = kernel.reshape(-1, kernel.shape[-1])
      x = _activate(x.reshape(-1, flat.shape[0]) @ flat, bias)
    return x.ravel()
