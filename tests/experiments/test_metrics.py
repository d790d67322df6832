"""Result files, the progress line and the table."""

import io

import pytest

from experiments.common.progress import Progress, format_duration
from experiments.common.recording import ResultsWriter
from experiments.common.tables import format_table


def test_rows_are_appended_whole_and_resuming_cuts_off_what_came_later(tmp_path):
  path = str(tmp_path / 'results.csv')
  writer = ResultsWriter(path, ('a', 'b'))
  writer.write([{'a': 1, 'b': 'x,y'}])
  length = writer.length
  writer.write([{'a': 2, 'b': 3}, {'a': 4, 'b': 5}])
  writer.close()
  again = ResultsWriter(path, ('a', 'b'), length)
  again.write([{'a': 6, 'b': 7}])
  again.close()
  assert (tmp_path / 'results.csv').read_text() == 'a,b\n1,"x,y"\n6,7\n'


def test_a_file_shorter_than_the_checkpoint_says_is_refused(tmp_path):
  path = tmp_path / 'results.csv'
  path.write_text('a,b\n')
  with pytest.raises(OSError, match='shorter'):
    ResultsWriter(str(path), ('a', 'b'), 100)


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_rewrites_the_line_of_a_terminal():
  stream = Terminal()
  progress = Progress(stream)
  progress.show('long text')
  progress.show('short', final=True)
  assert stream.getvalue() == '\rlong text\rshort    \n'


def test_progress_thins_out_its_lines_elsewhere():
  stream = io.StringIO()
  progress = Progress(stream, seconds_between_lines=1000)
  for text in ('first', 'second'):
    progress.show(text)
  progress.show('last', final=True)
  assert stream.getvalue() == 'first\nlast\n'


@pytest.mark.parametrize(('seconds', 'text'), [(12.4, '12s'), (187, '3m07s'), (3720, '1h02m'), (59.7, '1m00s')])
def test_durations(seconds, text):
  assert format_duration(seconds) == text


def test_table_aligns_to_the_right():
  assert format_table(('n', 'solved'), [(10, '9/10')]) == ' n  solved\n----------\n10    9/10'
