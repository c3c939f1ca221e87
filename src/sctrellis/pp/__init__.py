"""AnnData and MuData in and out; nothing is trained here."""

from sctrellis.pp._audit_labels import audit_labels
from sctrellis.pp._cis_links import cis_links
from sctrellis.pp._embedding import gene_embedding
from sctrellis.pp._multiome import multiome
from sctrellis.pp._network import network
from sctrellis.pp._regulators import regulators
from sctrellis.pp._split import split_edges
from sctrellis.pp._split_cells import split_cells
from sctrellis.pp._text_embedding import text_embedding

__all__ = [
    "audit_labels",
    "cis_links",
    "gene_embedding",
    "multiome",
    "network",
    "regulators",
    "split_cells",
    "split_edges",
    "text_embedding",
]
