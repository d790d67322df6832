"""The studies, by the names that --study takes."""

from experiments.tabular.study import Study

STUDIES: dict[str, Study] = {}
