"""Algorithms on a fitted model; tensors and arrays only."""

from sctrellis.explain._regnet_controls import graph_of_edges, initialised, precise
from sctrellis.explain._regnet_sensitivity import Sensitivity, regnet_sensitivity
from sctrellis.explain._sensitivity import alignment, moves, region_radius, responses, self_weight

__all__ = [
    "Sensitivity",
    "alignment",
    "graph_of_edges",
    "initialised",
    "moves",
    "precise",
    "region_radius",
    "regnet_sensitivity",
    "responses",
    "self_weight",
]
