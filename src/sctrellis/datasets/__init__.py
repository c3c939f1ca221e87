"""Simulators with known truth, and readers of published data."""

from sctrellis.datasets._beeline import beeline
from sctrellis.datasets._pbmc import pbmc, pbmc_regulators
from sctrellis.datasets._simulate import simulate_grn
from sctrellis.datasets._toy import toy

__all__ = [
    "beeline",
    "pbmc",
    "pbmc_regulators",
    "simulate_grn",
    "toy",
]
