"""Fit and judge: check, read, call, write, log."""

from sctrellis.tl._attribution import attribution
from sctrellis.tl._audit import audit
from sctrellis.tl._baseline import baseline
from sctrellis.tl._benchmark import benchmark
from sctrellis.tl._bias_audit import bias_audit
from sctrellis.tl._calibrate import calibrate
from sctrellis.tl._certify import certify
from sctrellis.tl._deepsem import deepsem
from sctrellis.tl._edge_classifier import edge_classifier
from sctrellis.tl._evaluate import evaluate
from sctrellis.tl._evaluate_perturbation import evaluate_perturbation
from sctrellis.tl._gold_check import gold_check
from sctrellis.tl._grids import grids
from sctrellis.tl._grids_benchmark import grids_benchmark
from sctrellis.tl._grids_null import grids_null
from sctrellis.tl._hit_ratio import hit_ratio
from sctrellis.tl._information import information
from sctrellis.tl._infosem import infosem
from sctrellis.tl._knockoffs import knockoffs
from sctrellis.tl._latent_map import latent_map
from sctrellis.tl._null import null
from sctrellis.tl._partial_test import partial_test
from sctrellis.tl._predict_perturbation import predict_perturbation
from sctrellis.tl._redundancy import redundancy
from sctrellis.tl._regnet import regnet
from sctrellis.tl._regnet_finetune import regnet_finetune
from sctrellis.tl._shrinkage import shrinkage
from sctrellis.tl._stability import stability
from sctrellis.tl._translate import translate

__all__ = [
    "attribution",
    "audit",
    "baseline",
    "benchmark",
    "bias_audit",
    "calibrate",
    "certify",
    "deepsem",
    "edge_classifier",
    "evaluate",
    "evaluate_perturbation",
    "gold_check",
    "grids",
    "grids_benchmark",
    "grids_null",
    "hit_ratio",
    "information",
    "infosem",
    "knockoffs",
    "latent_map",
    "null",
    "partial_test",
    "predict_perturbation",
    "redundancy",
    "regnet",
    "regnet_finetune",
    "shrinkage",
    "stability",
    "translate",
]
