"""Cooperative games: coalitions, Shapley values, estimators and indices, on tensors."""
