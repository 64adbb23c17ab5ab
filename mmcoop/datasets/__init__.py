"""Datasets: the folder on disk, loading of batches, and building blocks for recipes."""
