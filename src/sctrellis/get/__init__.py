"""Slots out as tables."""

from sctrellis.get._decoupler_net import decoupler_net
from sctrellis.get._edges import edges
from sctrellis.get._element_sets import element_sets
from sctrellis.get._graph import graph
from sctrellis.get._record import record

__all__ = [
    "decoupler_net",
    "edges",
    "element_sets",
    "graph",
    "record",
]
