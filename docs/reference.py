"""The API reference: which names are public, which are documented, and docstrings as reStructuredText.

Docstrings of this project are plain text in Google's style, formulas and all. Here they become what Sphinx reads:
characters that reStructuredText would take for markup are escaped, indented formulas are literal blocks, and the fields
of a class are listed with the comments beside them, where shapes stand.
"""

import ast
import importlib
import inspect
import io
import pathlib
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = (
  'hyperagent_jax',
  *('hyperagent_jax.baselines', 'hyperagent_jax.scores', 'hyperagent_jax.tabular'),
  *('hyperagent_jax.envs', 'hyperagent_jax.envs.bsuite'),
)
_SECTIONS = ('Args:', 'Returns:', 'Raises:', 'Yields:')


# ------------------------------------------------------------------------------------------------------ what is missing


def public_names() -> set[str]:
  """Every name in `__all__` of a public package, with the package's before it."""
  return {f'{package}.{name}' for package in PACKAGES for name in importlib.import_module(package).__all__}


def documented_names(folder: pathlib.Path = HERE / 'api') -> set[str]:
  """Every name that a directive of the API reference documents; of a module also what is in it."""
  names: set[str] = set()
  for page in folder.glob('*.md'):
    module = ''
    for directive, name in re.findall(r'^\.\. ([\w:]+):: (\S+)', page.read_text(), flags=re.MULTILINE):
      if directive in ('currentmodule', 'py:currentmodule'):
        module = name
      elif directive == 'automodule':
        names |= {name, *(f'{name}.{member}' for member in vars(importlib.import_module(name)))}
      elif directive.startswith(('auto', 'py:')):
        names |= {name, f'{module}.{name}'}
  return names


def missing_names() -> list[str]:
  """Public names that the API reference lacks."""
  return sorted(public_names() - documented_names())


# ----------------------------------------------------------------------------------------------------------- docstrings


class Field(NamedTuple):
  """A field of a class as its source has it."""

  name: str
  annotation: str
  comment: str  # beside it, or above it


def fields_of(cls: type) -> Iterator[Field]:
  """The annotated fields in a class's body, in order."""
  source = textwrap.dedent(inspect.getsource(cls))
  comments = {}  # line -> the comment on it, whether it is alone there
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      comments[token.start[0]] = (token.string.lstrip('# '), token.line.lstrip().startswith('#'))
  (body,) = ast.parse(source).body
  assert isinstance(body, ast.ClassDef)
  for node in body.body:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      beside = comments.get(node.end_lineno or 0, ('', True))[0]
      above: list[str] = []
      line = node.lineno - 1
      while comments.get(line, ('', False))[1]:
        above.insert(0, comments[line][0])
        line -= 1
      yield Field(node.target.id, ast.unparse(node.annotation), ' '.join([*above, beside]).strip())


def escaped(line: str) -> str:
  """Plain text in which reStructuredText finds no markup but what is in backquotes."""
  parts = re.split(r'(`[^`]*`)', line)
  parts[::2] = [re.sub(r'([*|\\])|_(?=\W|$)', lambda m: '\\' + m[0], part) for part in parts[::2]]
  return ''.join(parts)


def as_rst(lines: list[str]) -> list[str]:
  """A docstring of this project as reStructuredText; napoleon takes its sections from there."""
  out: list[str] = []
  literal, in_section = False, False
  for line in lines:
    indented = line.startswith('  ')
    in_section = line in _SECTIONS or (in_section and (indented or not line))
    if indented and not in_section and not literal:  # a formula
      out += ['', '::', '']
      literal = True
    elif literal and line and not indented:
      out.append('')
      literal = False
    out.append(line if literal or line in _SECTIONS else escaped(line))
  return out


def _link_to(annotation: str, cls: type) -> str:
  """A field's type, with a link where it is a protocol of the same module."""
  named = getattr(inspect.getmodule(cls), annotation, None)
  if getattr(named, '_is_protocol', False):
    return f':py:class:`~{cls.__module__}.{annotation}`'
  return f'``{annotation}``'


def _process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  """Sphinx's hook: escapes a docstring and lists a class's fields."""
  del app, name, options
  if not str(getattr(obj, '__module__', None) or getattr(obj, '__name__', '')).startswith('hyperagent_jax'):
    return
  lines[:] = as_rst(lines)
  # A dataclass's settings have a table of their own, with what is allowed.
  if what != 'class' or hasattr(obj, '__dataclass_fields__'):
    return
  fields = list(fields_of(obj))
  if fields:
    lines += ['', *(f'* **{f.name}** ({_link_to(f.annotation, obj)}) {escaped(f.comment)}' for f in fields), '']


class _Qualified(ast.NodeTransformer):
  """Names of the project's classes with their modules before them, which Sphinx shortens and links."""

  def __init__(self, names: dict[str, Any]):
    self._names = names

  def visit_Name(self, node: ast.Name) -> ast.Name:
    """Qualifies a name, unless it is another's."""
    named = self._names.get(node.id)
    if inspect.isclass(named) and named.__module__.startswith('hyperagent_jax'):
      return ast.Name(f'~{named.__module__}.{named.__qualname__}')
    return node


def signature_of(function: Any) -> tuple[str, str | None]:
  """Arguments and result of a function with the types as its source names them, such as PRNGKey; without self."""
  function = inspect.unwrap(function)
  (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
  assert isinstance(node, ast.FunctionDef)
  qualified = _Qualified(vars(inspect.getmodule(function)))
  arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
  for argument in arguments:
    argument.annotation = argument.annotation and qualified.visit(argument.annotation)
  for some in (node.args.posonlyargs, node.args.args):
    some[:] = [argument for argument in some if argument.arg != 'self']
  result = ast.unparse(qualified.visit(node.returns)) if node.returns else None
  return f'({ast.unparse(node.args)})', result


def _process_signature(app: Any, what: str, name: str, obj: Any, *rest: Any) -> tuple[str, str | None] | None:
  """Sphinx's hook: signatures as the source has them, and none for classes whose fields are listed."""
  del app, name, rest
  if what in ('function', 'method'):
    return signature_of(obj)
  listed = what == 'class' and (hasattr(obj, '__dataclass_fields__') or hasattr(obj, '_fields'))
  return ('', None) if listed or getattr(obj, '_is_protocol', False) else None


def _skip_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
  """Sphinx's hook: fields of a NamedTuple are listed already."""
  del app, what, name, skip, options
  return True if type(obj).__name__ == '_tuplegetter' else None


def _check(app: Any, env: Any) -> None:
  """Sphinx's hook: warns, and so ends the build, where a public name is in no page."""
  from sphinx.util import logging

  del app
  domain = env.get_domain('py')
  documented = {*domain.objects, *domain.modules}
  for name in sorted(public_names() - documented):
    logging.getLogger(__name__).warning('%s: public, but not in the API reference', name)


def setup(app: Any) -> None:
  """Connects the hooks."""
  app.connect('autodoc-process-docstring', _process_docstring, priority=400)  # before napoleon
  app.connect('autodoc-process-signature', _process_signature)
  app.connect('autodoc-skip-member', _skip_member)
  app.connect('env-check-consistency', _check)
