"""Simulators with known truth, and readers of published data."""

from sctrellis.datasets._beeline import beeline
from sctrellis.datasets._digits import digits_demo
from sctrellis.datasets._multiome import simulate_multiome
from sctrellis.datasets._multiome_truth import best_true_set, true_drop, true_log_mean
from sctrellis.datasets._pbmc import pbmc, pbmc_regulators
from sctrellis.datasets._simulate import simulate_grn
from sctrellis.datasets._toy import toy

__all__ = [
    "beeline",
    "best_true_set",
    "digits_demo",
    "pbmc",
    "pbmc_regulators",
    "simulate_grn",
    "simulate_multiome",
    "toy",
    "true_drop",
    "true_log_mean",
]
