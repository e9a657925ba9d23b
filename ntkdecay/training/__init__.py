"""Finite networks, trained: the measurements that theory is set beside."""

from ntkdecay.training._train import Run, train

__all__ = ["Run", "train"]
