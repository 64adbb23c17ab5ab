"""Data sets: the folder on disk, how its samples become batches, and the recipes that build it."""
