"""Multimodal classifiers: encoders, a fusion, and the model of both."""
