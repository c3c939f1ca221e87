from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sctrellis._core import slots
from sctrellis.get._edges import edges

if TYPE_CHECKING:
    import networkx as nx
    from anndata import AnnData
    from mudata import MuData


def graph(
    adata: "AnnData | MuData",
    key: str,
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    n_top: int | None = None,
    n_top_per_target: int | None = None,
    min_score: float | None = None,
    mod: str | None = None,
) -> "nx.DiGraph":
    """Read a network as a directed graph of networkx, from regulator to target.

    Pairs with score 0 and known non-edges are no edges of the graph. Choose with ``n_top`` or ``min_score``: most
    methods score every pair, and networkx needs about a kilobyte an edge.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the network in ``adata.varp``.
    regulators
        Keep edges out of these genes. Each must be in ``adata.var_names``.
    targets
        Keep edges into these genes. Each must be in ``adata.var_names``.
    n_top
        Keep this many of the strongest edges.
    n_top_per_target
        Keep this many of the strongest edges into each target.
    min_score
        Keep edges with at least this score, in the units of the method; at least 0.
    mod
        Modality to use where ``adata`` is a MuData.

    Returns
    -------
    networkx.DiGraph
        Nodes are the genes with an edge, named as in ``adata.var_names``, in the order in which the table of
        :func:`sctrellis.get.edges` first names them. Edges have ``weight`` and ``score``, and ``std``, ``prob`` and
        ``qval`` where these are known. The node attribute ``is_regulator`` is True where the network stores edges out
        of the gene, chosen or not. The graph attribute ``audit`` is as that of the table.

    Raises
    ------
    KeyError
        If there is no such network.
    ValueError
        As :func:`sctrellis.get.edges`, which warns of networks without an audit too.

    Examples
    --------
    >>> import anndata, numpy as np, sctrellis as tr
    >>> from scipy.sparse import csr_matrix
    >>> adata = anndata.AnnData(np.ones((3, 3), np.float32))
    >>> adata.var_names = ["GATA1", "KLF1", "SPI1"]
    >>> adata.varp["net"] = csr_matrix(np.array([[0, 0.5, -0.25], [0, 0, 0], [-0.75, 0.1, 0]], np.float32))
    >>> graph = tr.get.graph(adata, "net", n_top=2)
    >>> graph.edges["SPI1", "GATA1"]
    {'weight': -0.75, 'score': 0.75}
    >>> graph.nodes["KLF1"]
    {'is_regulator': False}
    """
    import networkx as nx

    table = edges(
        adata,
        key,
        regulators=regulators,
        targets=targets,
        n_top=n_top,
        n_top_per_target=n_top_per_target,
        min_score=min_score,
        mod=mod,
    )
    table = table[table["score"] > 0]
    ad = slots.source(adata, mod)
    stored = np.diff(slots.read_network(ad, key, argument="key").indptr) > 0
    ends = table[["source", "target"]].to_numpy().ravel()
    result: nx.DiGraph[str] = nx.DiGraph(key=key, **{str(name): said for name, said in table.attrs.items()})
    for gene in dict.fromkeys(ends):
        result.add_node(gene, is_regulator=bool(stored[ad.var_names.get_loc(gene)]))
    values = [column for column in table.columns if column not in ("source", "target")]
    for row in table.to_dict("records"):
        known = {name: float(row[name]) for name in values if not np.isnan(row[name])}
        result.add_edge(row["source"], row["target"], **known)
    return result
