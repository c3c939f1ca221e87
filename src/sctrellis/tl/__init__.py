"""Fit and judge: check, read, call, write, log."""

from sctrellis.tl._baseline import baseline
from sctrellis.tl._benchmark import benchmark
from sctrellis.tl._bias_audit import bias_audit
from sctrellis.tl._calibrate import calibrate
from sctrellis.tl._deepsem import deepsem
from sctrellis.tl._edge_classifier import edge_classifier
from sctrellis.tl._evaluate import evaluate
from sctrellis.tl._infosem import infosem
from sctrellis.tl._latent_map import latent_map
from sctrellis.tl._regnet import regnet
from sctrellis.tl._regnet_finetune import regnet_finetune
from sctrellis.tl._shrinkage import shrinkage
from sctrellis.tl._translate import translate

__all__ = [
    "baseline",
    "benchmark",
    "bias_audit",
    "calibrate",
    "deepsem",
    "edge_classifier",
    "evaluate",
    "infosem",
    "latent_map",
    "regnet",
    "regnet_finetune",
    "shrinkage",
    "translate",
]
