"""Studies: their settings, how a run is started, stopped and gone on with, and their tables."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from experiments.common.errors import OUT_OF_TIME, Stopped
from experiments.common.files import owned
from experiments.deep_sea.settings import define_flags, read_settings, to_dict
from experiments.deep_sea.studies import binary as __main__
from experiments.deep_sea.studies import report, study
from experiments.deep_sea.studies.registry import STUDIES
from experiments.deep_sea.studies.study import COLUMNS, Setting, Study, command, grid, run_setting, run_study
from experiments.deep_sea.studies.tuning import variants
from hyperagent_jax.baselines import SYSTEMS
from hyperagent_jax.config import ConfigError

SUMMARY = """agent,size,seed,solved,episodes,interactions,max_episodes,seconds,steps_per_second,parameters
hyperagent,4,0,1,60,240,100,3.5,900,123
hyperagent,4,1,0,100,400,100,3.5,900,123
"""
SETTING = Setting('a', 4, {'size': 4, 'update_indices': '20', 'geometric_resampling': False, 'stochastic': True})


def finished(folder: pathlib.Path, setting=None):
  """Leaves what a finished run of a setting leaves."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / study.SUMMARY).write_text(SUMMARY)
  if setting is not None:
    settings = to_dict(*parsed(setting))
    (folder / 'config.json').write_text(json.dumps({**settings, 'versions': {'jax': '1'}}))


class Process:
  """Stands in for `subprocess.run`: remembers the command and leaves what a run would leave."""

  def __init__(self, status=0, stderr=''):
    self.calls, self.status, self.stderr = [], status, stderr

  def __call__(self, words, **_):
    self.calls.append(words)
    if self.status:
      return subprocess.CompletedProcess(words, self.status, '', self.stderr)
    folder = pathlib.Path(next(w for w in words if w.startswith('--output_dir=')).split('=', 1)[1])
    finished(folder)
    return subprocess.CompletedProcess(words, 0, '', '')


@pytest.fixture
def process(monkeypatch):
  fake = Process()
  monkeypatch.setattr(subprocess, 'run', fake)
  return fake


def test_a_runs_name_depends_on_its_flags_only():
  assert SETTING.run_name == 'nogeometric_resampling,size=4,stochastic,update_indices=20'
  reordered = Setting('b', 'x', dict(reversed(SETTING.flags.items())))
  assert reordered.run_name == SETTING.run_name


def test_grid_is_every_series_at_every_value():
  made = grid({'one': {'sigma': 0.1}, 'two': {}}, 'size', (4, 5), num_seeds=2)
  assert [(s.series, s.x) for s in made] == [('one', 4), ('one', 5), ('two', 4), ('two', 5)]
  assert made[1].flags == {'num_seeds': 2, 'sigma': 0.1, 'size': 5}


def test_a_run_is_begun_or_gone_on_with_by_one_command(tmp_path, process):
  assert command(SETTING, tmp_path)[-1] == '--resume=auto'
  run_setting(SETTING, tmp_path, float('inf'))
  assert process.calls == [command(SETTING, tmp_path)]
  assert all(not w.startswith('--max_minutes') for w in process.calls[-1])


def test_a_finished_run_is_not_run_again(tmp_path, process):
  finished(tmp_path / 'run', SETTING)
  run_setting(SETTING, tmp_path / 'run', float('inf'))
  assert process.calls == []


def test_a_finished_run_is_refused_where_its_flags_mean_other_settings_now(tmp_path, process):
  finished(tmp_path / 'run', SETTING)
  path = tmp_path / 'run' / 'config.json'
  path.write_text(path.read_text().replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
  with pytest.raises(ConfigError, match=r'learning_rate: 0\.002 -> 0\.001; delete it'):
    run_setting(SETTING, tmp_path / 'run', float('inf'))


def test_a_failed_run_is_one_line_with_its_command(tmp_path, monkeypatch):
  monkeypatch.setattr(subprocess, 'run', Process(1, 'noise\ndeep_sea: --size=1: must be at least 2\n'))
  with pytest.raises(ConfigError) as e:
    run_setting(SETTING, tmp_path / 'run', float('inf'))
  assert '--size=4' in str(e.value) and str(e.value).endswith('exit status 1: deep_sea: --size=1: must be at least 2')
  assert '\n' not in str(e.value)


def test_a_study_out_of_time_stops_and_goes_on_later(tmp_path, monkeypatch):
  made = Study('s', 't', 'x', settings=(SETTING,), reduced=())
  out_of_time = Process(OUT_OF_TIME)
  monkeypatch.setattr(subprocess, 'run', out_of_time)
  with pytest.raises(Stopped) as e:
    run_study(made, tmp_path, reduced=False, deadline=0.0)
  assert e.value.status == OUT_OF_TIME
  assert '--max_minutes=0.02' in out_of_time.calls[0]  # long enough to save a checkpoint
  monkeypatch.setattr(subprocess, 'run', Process())
  assert run_study(made, tmp_path, reduced=False).exists()


def test_a_table_has_a_line_for_every_run_and_seed(tmp_path, process, capsys):
  other = Setting('b', 'word', {'size': 4})
  table = run_study(Study('s', 't', 'x', settings=(SETTING, other), reduced=()), tmp_path, reduced=False)
  rows = list(csv.DictReader(table.open()))
  assert tuple(rows[0]) == COLUMNS
  assert [(r['series'], r['x'], r['seed'], r['solved'], r['episodes']) for r in rows] == [
    ('a', '4', '0', '1', '60'),
    ('a', '4', '1', '0', '100'),
    ('b', 'word', '0', '1', '60'),
    ('b', 'word', '1', '0', '100'),
  ]
  assert rows[0]['flags'] == '--nogeometric_resampling --size=4 --stochastic --update_indices=20'
  assert '1/2 seeds solved, 60 episodes' in capsys.readouterr().out


def parsed(setting):
  """The settings that a run's flags give, as the binary reads them."""
  values = flags.FlagValues()
  define_flags(values)
  values(['deep_sea', *setting.arguments])
  by_size, run, _, env = read_settings(values)
  return by_size, run, env


@pytest.mark.parametrize('name', STUDIES)
def test_every_setting_of_a_study_is_one_the_binary_takes(name):
  for reduced in (False, True):
    settings = STUDIES[name].reduced if reduced else STUDIES[name].settings
    assert settings
    assert len({(s.series, s.x) for s in settings}) == len(settings)
    for setting in settings:
      by_size, run, env = parsed(setting)
      agent = by_size[setting.flags['size']]
      assert env.size == (setting.flags['size'],)
      assert run.num_seeds == setting.flags['num_seeds']
      for flag, value in setting.flags.items():
        if hasattr(agent, flag):
          assert str(getattr(agent, flag)) == str(value)


def test_a_preset_that_depends_on_the_size_is_that_of_each_size():
  by_size, run, env = parsed(Setting('s', 1, {'size': '20,50', 'preset': 'deep_sea_best'}))
  assert {size: (c.grid_size, c.discount) for size, c in by_size.items()} == {20: (20, 0.875), 50: (50, 0.95)}
  written = to_dict(by_size, run, env)
  assert written['discount'] == {'20': 0.875, '50': 0.95} and written['grid_size'] == 50
  assert written['update_ratio'] == 8.0


def test_no_figure_reports_the_seeds_that_were_tuned_on():
  for name, made in STUDIES.items():
    for setting in made.settings:
      first = setting.flags.get('first_seed', 0)
      assert (first >= 100) == (name in ('tuning', 'best_tuning'))
      assert first or setting.flags['num_seeds'] <= 100


def test_every_system_is_tuned_with_the_same_number_of_runs():
  assert {len(variants(agent)) for agent in SYSTEMS} == {5}
  assert {len(set(map(str, variants(agent).values()))) for agent in SYSTEMS} == {5}


def run_main(monkeypatch, *arguments):
  monkeypatch.setattr(sys, 'argv', ['studies', *arguments])
  values = flags.FlagValues()
  __main__.define_flags(values)
  values(sys.argv)
  monkeypatch.setattr(flags, 'FLAGS', values)
  __main__.main()


@pytest.mark.parametrize(
  'arguments, text',
  [(['--study=nothing'], '--study=nothing: must be all, or of'), (['--max_minutes=-1'], 'at least 0')],
)
def test_bad_input_is_refused(monkeypatch, arguments, text):
  with pytest.raises(ConfigError, match=text):
    run_main(monkeypatch, *arguments)


def test_a_study_draws_its_figure_beside_its_table(tmp_path, monkeypatch, process, capsys):
  run_main(monkeypatch, '--study=sigma', '--reduced', f'--output_dir={tmp_path}')
  assert (tmp_path / 'sigma.csv').exists() and (tmp_path / 'sigma.png').stat().st_size > 1000
  assert len(process.calls) == 2
  assert capsys.readouterr().out.strip().endswith('sigma.png')


def test_a_folder_in_which_a_study_is_at_work_is_refused(tmp_path, monkeypatch, process):
  with owned(tmp_path), pytest.raises(ConfigError, match=r'another run is writing there \(process \d+ on '):
    run_main(monkeypatch, '--study=sigma', '--reduced', f'--output_dir={tmp_path}')
  assert process.calls == []
  with owned(tmp_path):  # and is free again afterwards
    pass


def test_a_report_takes_its_tables_from_the_files_and_leaves_its_words(tmp_path, monkeypatch, process):
  run_main(monkeypatch, '--study=sigma', '--reduced', f'--output_dir={tmp_path}')
  text = '# Words\n\n<!-- sigma -->\nan old table\n<!-- end -->\n\nMore words.\n'
  filled = report.fill(text, tmp_path)
  assert filled.startswith('# Words\n\n<!-- sigma -->\n![Perturbation of targets](sigma.png)\n\n|  | 0 | 0.01 |\n')
  assert filled.endswith('| 1/2: 60 |\n<!-- end -->\n\nMore words.\n') and 'old' not in filled
  assert report.fill(filled, tmp_path) == filled


@pytest.mark.parametrize('name, text', [('sgma', 'must be one of'), ('targets', 'no such table yet')])
def test_a_report_with_a_table_that_is_not_there_is_refused(tmp_path, name, text):
  with pytest.raises(ConfigError, match=text):
    report.fill(f'<!-- {name} -->\n<!-- end -->', tmp_path)


def test_a_mark_that_is_not_closed_is_refused_and_takes_no_words_away(tmp_path):
  with pytest.raises(ConfigError, match='<!-- sigma -->: must be closed by'):
    report.fill('<!-- sigma -->\nwords\n\n<!-- targets -->\n<!-- end -->', tmp_path)


def test_the_committed_report_has_the_committed_tables():
  folder = pathlib.Path(__file__).parents[2] / 'experiments' / 'results' / 'studies'
  text = (folder / report.README).read_text()
  assert report.fill(text, folder) == text
  assert {name for name in STUDIES if f'<!-- {name} -->' in text} == set(STUDIES)
