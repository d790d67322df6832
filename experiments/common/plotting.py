"""What all figures share: colours, writing a picture, and the command that draws a run's figures again."""

import io
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from experiments.common.extras import DRAWING, require

# Commands that draw import this module before anything of matplotlib's.
require('figures', 'experiments', 'figures', modules=('absl', *DRAWING))

from absl import app, flags  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: E402

from experiments.common.files import write_atomically  # noqa: E402

Row = dict[str, Any]  # of a table of results

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, DARK, GREY = '#0072B2', '#D55E00', '#222222', '#777777'
# All of theirs without yellow, which is too light for a line.
COLOURS = (BLUE, ORANGE, '#009E73', '#CC79A7', '#E69F00', '#56B4E9', DARK)
MARKERS = 'osDvPXphd<>8H*'  # not ^, which is an unsolved seed
LAST_FRAME_MS = 2500  # of animations


def blank_figure(width: float, height: float, **pads: Any) -> Figure:
  """A white figure of so many inches, laid out by constraints.

  No pyplot: its state is global, and figures are drawn next to other code that draws.

  Args:
    width: inches.
    height: inches.
    **pads: w_pad, h_pad (inches around axes) and wspace, hspace (between them), where not Matplotlib's own.
  """
  return Figure((width, height), layout=ConstrainedLayoutEngine(**pads), facecolor='white')


def save_figure(path: str, content: Figure | bytes) -> str:
  """Writes a file whole or not at all."""
  if isinstance(content, Figure):
    file = io.BytesIO()
    FigureCanvasAgg(content).print_figure(file, format='png', dpi=150)
    content = file.getvalue()
  write_atomically(pathlib.Path(path), content)
  return path


def redraw(program: str, draw: Callable[[str], Sequence[str]], output_dir: str) -> None:
  """Draws what belongs into a folder and prints the paths; trouble with its files is one line and exit status 1."""
  try:
    for path in draw(output_dir):
      print(path)
  except (OSError, ValueError) as error:
    text = f'{error.filename}: {error.strerror}' if isinstance(error, OSError) and error.filename else str(error)
    print(f'{program}: {text}', file=sys.stderr)
    sys.exit(1)


def redraw_main(program: str, draw: Callable[[str], Sequence[str]]) -> None:
  """`redraw` as a command with --output_dir."""
  # Not at import: an experiment that draws has an --output_dir of its own.
  flags.DEFINE_string('output_dir', None, 'Folder of a run, with its results.csv.', required=True)
  flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['output_dir'])  # so that --help lists it
  app.run(lambda argv: redraw(program, draw, flags.FLAGS.output_dir))
