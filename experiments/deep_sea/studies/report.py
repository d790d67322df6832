"""Puts a study's tables into the text that explains them, so that no number is copied by hand.

    python -m experiments.deep_sea.studies.report --output_dir=experiments/results/studies

replaces, in README.md of that folder, everything between `<!-- NAME -->` and `<!-- end -->` by the picture and the
table of the study of that name. What is written outside of these marks stays as it is.
"""

import pathlib
import re

from absl import flags

from experiments.common.cli import start_main
from experiments.common.files import write_atomically
from experiments.common.runs import folder_named
from experiments.common.tables import read_table
from experiments.deep_sea.studies.registry import STUDIES
from experiments.deep_sea.studies.study import COLUMNS
from experiments.deep_sea.studies.tables import markdown_table
from hyperagent_jax.config import ConfigError

README = 'README.md'
_MARKED = re.compile(r'<!-- (\w+) -->\n(?:(?!<!--).)*<!-- end -->', re.DOTALL)


def fill(text: str, folder: pathlib.Path) -> str:
  """The text with every study's picture and table as they are in the folder now.

  Raises:
    ConfigError: if a mark names no study or is not closed, or the study has no table there.
  """

  def section(match: re.Match) -> str:
    name = match[1]
    if name not in STUDIES:
      raise ConfigError(f'{README}: <!-- {name} -->: must be one of {", ".join(STUDIES)}')
    path = folder / f'{name}.csv'
    if not path.exists():
      raise ConfigError(f'{path}: there is no such table yet')
    study = STUDIES[name]
    table = markdown_table(read_table(str(path), COLUMNS), study.y)
    return f'<!-- {name} -->\n![{study.title}]({name}.png)\n\n{table}<!-- end -->'

  opened = [name for name in re.findall(r'<!-- (\w+) -->', text) if name != 'end']
  unclosed = [name for name in opened if name not in _MARKED.findall(text)]
  if unclosed:
    raise ConfigError(f'{README}: <!-- {unclosed[0]} -->: must be closed by <!-- end -->')
  return _MARKED.sub(section, text)


def main() -> None:
  """Fills README.md of the output folder."""
  folder = folder_named(flags.FLAGS.output_dir)
  path = folder / README
  if not path.exists():
    raise ConfigError(f'--output_dir={folder}: has no {README}')
  write_atomically(path, fill(path.read_text(), folder).encode())
  print(path)


if __name__ == '__main__':
  flags.DEFINE_string('output_dir', 'experiments/results/studies', 'Folder of the tables and the text.')
  start_main(main, 'report')
