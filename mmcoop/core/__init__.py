"""The torch core: coalitions, values, Shapley values, valuation, resampling, models.

Knows tensors; knows nothing of files, terminals or the command line.
"""
