"""Readers for files of unknown origin, which are bounded and checked before use.

Every file that mmcoop reads passes through this package. Its readers never trust a size, an offset
or a type that a file states. Invalid content raises a `DataError` that names the file.
"""
