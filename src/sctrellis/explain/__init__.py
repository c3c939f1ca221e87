"""Algorithms on a fitted model; tensors and arrays only."""

from sctrellis.explain._regnet_sensitivity import Sensitivity, regnet_sensitivity
from sctrellis.explain._sensitivity import alignment, moves, region_radius, responses, self_weight

__all__ = [
    "Sensitivity",
    "alignment",
    "moves",
    "region_radius",
    "regnet_sensitivity",
    "responses",
    "self_weight",
]
