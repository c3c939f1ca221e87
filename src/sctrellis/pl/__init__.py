"""Draw what is stored."""

from sctrellis.pl._history import history
from sctrellis.pl._network import network
from sctrellis.pl._precision_recall import precision_recall
from sctrellis.pl._scores import scores

__all__ = ["history", "network", "precision_recall", "scores"]
