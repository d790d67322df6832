"""The former place of `experiments.deep_sea.studies`; its commands go on working."""
