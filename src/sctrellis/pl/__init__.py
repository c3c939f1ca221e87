"""Draw what is stored."""

from sctrellis.pl._benchmark import benchmark
from sctrellis.pl._bias_audit import bias_audit
from sctrellis.pl._calibration import calibration
from sctrellis.pl._history import history
from sctrellis.pl._network import network
from sctrellis.pl._null import null
from sctrellis.pl._perturbation_skill import perturbation_skill
from sctrellis.pl._precision_recall import precision_recall
from sctrellis.pl._scores import scores

__all__ = [
    "benchmark",
    "bias_audit",
    "calibration",
    "history",
    "network",
    "null",
    "perturbation_skill",
    "precision_recall",
    "scores",
]
