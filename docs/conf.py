"""Sphinx's settings; `make docs` builds the pages into build/docs."""

import os
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # experiments are not installed
os.environ['PYTHONPATH'] = str(ROOT)  # for the pages that are executed
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / 'build' / 'compiled'))

import hyperagent_jax  # noqa: E402, after the settings above
from docs import flags, pages, reference  # noqa: E402

GENERATED = ROOT / 'docs' / '_generated'  # files that other pages include
flags.write(GENERATED)
pages.write(GENERATED)

project = 'hyperagent_jax'
author = 'the hyperagent_jax developers'
copyright = author
version = release = hyperagent_jax.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_generated']
html_theme = 'furo'
html_title = f'{project} {version}'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_show_copyright = False

myst_heading_anchors = 3
nb_execution_mode = 'force'
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = 'remove'

autodoc_default_options = {'members': True, 'member-order': 'bysource'}
autodoc_typehints_format = 'short'
highlight_language = 'none'  # of blocks that do not name one: formulas and commands
default_role = 'py:obj'  # `make_network` in a docstring is a link where there is such an entry
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def setup(app: Any) -> None:
  """Registers what the API reference needs."""
  reference.setup(app)
