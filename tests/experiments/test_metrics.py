"""Result files, the progress line and the table."""

import io

import pytest

from experiments.common.progress import Progress, format_duration
from experiments.common.recording import ResultsWriter, TensorBoard
from experiments.common.tables import format_table


def test_rows_are_appended_whole_and_resuming_cuts_off_what_came_later(tmp_path):
  path = str(tmp_path / 'results.csv')
  writer = ResultsWriter(path, ('a', 'b'))
  writer.write('task', [{'a': 1, 'b': 'x,y'}])
  part = writer.part('task')
  writer.write('task', [{'a': 2, 'b': 3}, {'a': 4, 'b': 5}])
  again = ResultsWriter(path, ('a', 'b'), {'task': part})
  again.write('task', [{'a': 6, 'b': 7}])
  assert (tmp_path / 'results.csv').read_text() == 'a,b\n1,"x,y"\n6,7\n'
  assert [path.name for path in tmp_path.iterdir()] == ['results.csv']


def test_a_new_run_does_not_write_over_a_file(tmp_path):
  path = tmp_path / 'results.csv'
  path.write_text('a,b\n')
  with pytest.raises(FileExistsError):
    ResultsWriter(str(path), ('a', 'b'))
  assert path.read_text() == 'a,b\n'


@pytest.mark.parametrize(
  'damage',
  [
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b'a,b\r\n1,2\r\n3,4\r\n'),
    lambda path: path.write_bytes(path.read_bytes()[:6]),
    lambda path: path.write_bytes(b''),
  ],
  ids=['deleted', 'line ends', 'cut', 'emptied'],
)
@pytest.mark.parametrize('resuming', [False, True])
def test_a_file_that_others_change_is_written_anew_from_what_the_run_knows(tmp_path, capsys, damage, resuming):
  path = tmp_path / 'results.csv'
  writer = ResultsWriter(str(path), ('a', 'b'))
  writer.write('one', [{'a': 1, 'b': 2}])
  writer.write('two', [{'a': 3, 'b': 4}])
  damage(path)
  if resuming:
    writer = ResultsWriter(str(path), ('a', 'b'), {name: writer.part(name) for name in ('one', 'two')})
  writer.write('two', [{'a': 5, 'b': 6}])
  assert path.read_text() == 'a,b\n1,2\n3,4\n5,6\n'
  assert 'written anew' in capsys.readouterr().err


def test_a_task_that_is_begun_again_keeps_its_place(tmp_path):
  path = tmp_path / 'results.csv'
  writer = ResultsWriter(str(path), ('a',))
  writer.write('one', [{'a': 1}])
  writer.write('two', [{'a': 10}])
  again = ResultsWriter(str(path), ('a',), {'one': '', 'two': writer.part('two'), 'three': ''})
  again.write('one', [{'a': 1}])
  again.write('two', [{'a': 11}])
  again.write('three', [{'a': 20}])
  assert path.read_text().split() == ['a', '1', '10', '11', '20']


def test_rows_of_a_task_stand_together_whichever_comes_first(tmp_path):
  """A task that goes on from an earlier checkpoint, because its newest is damaged, doubles no row of its own."""
  path = tmp_path / 'results.csv'
  writer = ResultsWriter(str(path), ('a',))
  writer.write('one', [{'a': 1}])
  early = writer.part('one')
  writer.write('one', [{'a': 2}])
  writer.write('two', [{'a': 10}])
  again = ResultsWriter(str(path), ('a',), {'one': early, 'two': writer.part('two')})
  again.write('one', [{'a': 2}])
  again.write('two', [{'a': 11}])
  assert path.read_text().split() == ['a', '1', '2', '10', '11']


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


def test_events_are_on_disk_when_a_checkpoint_asks_and_are_cut_back_to_it(tmp_path):
  events = TensorBoard(str(tmp_path), True)
  events.write(1, {'loss': 1.0})
  kept = events.sizes()
  (name,) = kept
  before = (tmp_path / name).read_bytes()
  assert len(before) == kept[name] > 0 and b'loss' in before
  events.write(2, {'later': 2.0})
  events.close()
  (tmp_path / 'events.out.tfevents.99.of_a_run_after_it').write_bytes(b'void')
  assert b'later' in (tmp_path / name).read_bytes()
  again = TensorBoard(str(tmp_path), True, kept=kept)
  again.write(2, {'again': 3.0})
  again.close()
  assert (tmp_path / name).read_bytes() == before
  texts = [path.read_bytes() for path in tmp_path.iterdir()]
  assert len(texts) == 2 and sum(b'again' in text for text in texts) == 1 and not any(b'later' in t for t in texts)


def test_a_resumption_without_events_keeps_those_before(tmp_path):
  events = TensorBoard(str(tmp_path), True)
  events.write(1, {'loss': 1.0})
  kept = events.sizes()
  events.close()
  off = TensorBoard(str(tmp_path), False, kept=kept)
  assert off.sizes() == kept
  TensorBoard(str(tmp_path), True, kept=off.sizes()).close()
  assert all((tmp_path / name).stat().st_size == size for name, size in kept.items())


def test_events_that_are_off_take_no_file(tmp_path):
  events = TensorBoard(str(tmp_path / 'x'), False, kept={})
  events.write(1, {'loss': 1.0})
  assert events.sizes() == {}
  events.close()
  assert not (tmp_path / 'x').exists()
