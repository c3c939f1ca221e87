"""Algorithms on a fitted model: tensors and arrays in, tensors and arrays out."""

from sctrellis.explain._additive import AdditiveObjective
from sctrellis.explain._attribution import Attribution, attribute
from sctrellis.explain._epistasis import Epistasis, epistasis
from sctrellis.explain._regnet_sensitivity import Sensitivity, regnet_sensitivity
from sctrellis.explain._sensitivity import Moves, alignment, moves, region_radius, responses, self_weight
from sctrellis.explain._set_change import SetChange
from sctrellis.explain._subset_search import SubsetSearch, subset_search
from sctrellis.explain._subset_swap import SubsetSwap

__all__ = [
    "AdditiveObjective",
    "Attribution",
    "Epistasis",
    "Moves",
    "Sensitivity",
    "SetChange",
    "SubsetSearch",
    "SubsetSwap",
    "alignment",
    "attribute",
    "epistasis",
    "moves",
    "region_radius",
    "regnet_sensitivity",
    "responses",
    "self_weight",
    "subset_search",
]
