"""Joint training: every sample with all modalities, cross-entropy of the joint prediction."""

from mmcoop.methods.base import Method


class Joint(Method):
    """The method everything is compared with."""
