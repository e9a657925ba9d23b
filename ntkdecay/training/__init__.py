"""Networks of finite width: one run, or a whole grid of runs in one compiled program."""

from ntkdecay.training._load import load
from ntkdecay.training._metrics import METRICS, Snapshot, accuracy
from ntkdecay.training._problem import init_key
from ntkdecay.training._sweep import sweep
from ntkdecay.training._train import Run, train

__all__ = ["METRICS", "Run", "Snapshot", "accuracy", "init_key", "load", "sweep", "train"]
