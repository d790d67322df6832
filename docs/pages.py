"""The READMEs that lie beside code and results, and their like, as parts of pages.

A page includes the copy of a README without its title. Links among READMEs become links among pages; what else a README
links to is not part of the pages, and is named by its path in a checkout.
"""

import os
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
# README -> the page that includes it.
PAGES = {
  'README.md': 'index.md',
  'CHANGELOG.md': 'changelog.md',
  'CONTRIBUTING.md': 'contributing.md',
  'benchmarks/README.md': 'speed.md',
  'examples/README.md': 'embedding.md',
  'experiments/atari/reference/README.md': 'atari.md',
  'experiments/results/bsuite/README.md': 'bsuite.md',
  'experiments/results/studies/README.md': 'study.md',
  'experiments/results/tabular/README.md': 'theory.md',
}
_LINK = re.compile(r'(!?)\[([^\[\]]*)\]\(([^)\s]+)\)')


def with_links_of_pages(text: str, readme: str) -> str:
  """A README's text with links as they must be in a page."""

  def link(match: re.Match[str]) -> str:
    image, label, target = match.groups()
    if '://' in target or target.startswith('#'):
      return match[0]
    path = os.path.normpath(os.path.join(os.path.dirname(readme), target))
    if image:
      return f'![{label}](../{path})'
    if path in PAGES:
      return f'[{label}]({PAGES[path]})'
    if path.startswith('docs/'):
      return f'[{label}]({path.removeprefix("docs/")})'
    return f'`{path}`' if path.endswith(label) else f'{label} (`{path}`)'

  return _LINK.sub(link, text)


def with_whole_ranges(text: str) -> str:
  """A text in whose tables a range of numbers does not break after its hyphen."""
  return re.sub(r'^\|.*\|$', lambda row: re.sub(r'(?<=\d)-(?=\d)', '\N{NON-BREAKING HYPHEN}', row[0]), text, flags=re.M)


def without_title(text: str) -> str:
  """A Markdown text without its first heading."""
  return re.sub(r'\A# .*\n+', '', text)


def write(folder: pathlib.Path) -> None:
  """Writes a copy of each README for the page that includes it, under that page's name."""
  folder.mkdir(exist_ok=True)
  for readme, page in PAGES.items():
    if page != 'index.md':
      text = (ROOT / readme).read_text()
      (folder / page).write_text(with_whole_ranges(with_links_of_pages(without_title(text), readme)))
