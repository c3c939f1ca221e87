"""Fit and judge: check, read, call, write, log."""

from sctrellis.tl._baseline import baseline
from sctrellis.tl._benchmark import benchmark
from sctrellis.tl._bias_audit import bias_audit
from sctrellis.tl._calibrate import calibrate
from sctrellis.tl._certify import certify
from sctrellis.tl._deepsem import deepsem
from sctrellis.tl._edge_classifier import edge_classifier
from sctrellis.tl._evaluate import evaluate
from sctrellis.tl._evaluate_perturbation import evaluate_perturbation
from sctrellis.tl._infosem import infosem
from sctrellis.tl._knockoffs import knockoffs
from sctrellis.tl._null import null
from sctrellis.tl._partial_test import partial_test
from sctrellis.tl._predict_perturbation import predict_perturbation

__all__ = [
    "baseline",
    "benchmark",
    "bias_audit",
    "calibrate",
    "certify",
    "deepsem",
    "edge_classifier",
    "evaluate",
    "evaluate_perturbation",
    "infosem",
    "knockoffs",
    "null",
    "partial_test",
    "predict_perturbation",
]
