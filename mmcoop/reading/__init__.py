"""Files of unknown origin: bounded, checked, and only then used.

Every file that mmcoop reads comes through here. A reader never trusts a size, an offset or a type
that a file states; what does not hold is a `DataError` that names the file.
"""
