"""Scores of valued samples: the table, and the calls that fill it."""
