"""Draw what is stored."""

from sctrellis.pl._alignment import alignment
from sctrellis.pl._audit import audit
from sctrellis.pl._benchmark import benchmark
from sctrellis.pl._bias_audit import bias_audit
from sctrellis.pl._calibration import calibration
from sctrellis.pl._distance_decay import distance_decay
from sctrellis.pl._edge_uncertainty import edge_uncertainty
from sctrellis.pl._expression_shift import expression_shift
from sctrellis.pl._gate import gate
from sctrellis.pl._history import history
from sctrellis.pl._information import information
from sctrellis.pl._latent import latent
from sctrellis.pl._locus import locus
from sctrellis.pl._network import network
from sctrellis.pl._null import null
from sctrellis.pl._perturbation import perturbation
from sctrellis.pl._perturbation_skill import perturbation_skill
from sctrellis.pl._precision_recall import precision_recall
from sctrellis.pl._redundancy import redundancy
from sctrellis.pl._scores import scores
from sctrellis.pl._search_trace import search_trace
from sctrellis.pl._shrinkage import shrinkage
from sctrellis.pl._translation import translation

__all__ = [
    "alignment",
    "audit",
    "benchmark",
    "bias_audit",
    "calibration",
    "distance_decay",
    "edge_uncertainty",
    "expression_shift",
    "gate",
    "history",
    "information",
    "latent",
    "locus",
    "network",
    "null",
    "perturbation",
    "perturbation_skill",
    "precision_recall",
    "redundancy",
    "scores",
    "search_trace",
    "shrinkage",
    "translation",
]
