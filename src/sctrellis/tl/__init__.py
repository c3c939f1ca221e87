"""Fit and judge: check, read, call, write, log."""

from sctrellis.tl._baseline import baseline
from sctrellis.tl._evaluate import evaluate

__all__ = ["baseline", "evaluate"]
