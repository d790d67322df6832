"""Experiments: one binary per kind of environment."""
