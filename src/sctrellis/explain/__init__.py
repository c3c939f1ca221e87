"""Algorithms on a fitted model: arrays and tensors, no AnnData."""

from sctrellis.explain._epistasis import Epistasis, epistasis

__all__ = [
    "Epistasis",
    "epistasis",
]
