"""Made-up digits in MNIST's format."""

import gzip
import struct

import numpy as np

IMAGES = np.random.RandomState(0).randint(0, 256, (30, 28, 28)).astype(np.uint8)
LABELS = np.random.RandomState(1).randint(0, 10, 30).astype(np.uint8)


def write(folder, images=IMAGES, labels=LABELS):
  """Writes the files of the training set."""
  header = struct.pack('>IIII', 2051, *images.shape)
  (folder / 'train-images-idx3-ubyte.gz').write_bytes(gzip.compress(header + images.tobytes()))
  header = struct.pack('>II', 2049, len(labels))
  (folder / 'train-labels-idx1-ubyte.gz').write_bytes(gzip.compress(header + labels.tobytes()))
