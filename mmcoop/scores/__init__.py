"""The scores table, and samples valued into it."""
