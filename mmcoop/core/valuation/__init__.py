"""Model and batches to coalition values and contributions."""
