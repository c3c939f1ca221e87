from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sctrellis._core import audited, checks, slots
from sctrellis.get import _pairs

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_EXTRAS = ("std", "prob", "qval")


def edges(
    adata: "AnnData | MuData",
    key: str,
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    n_top: int | None = None,
    n_top_per_target: int | None = None,
    min_score: float | None = None,
    mod: str | None = None,
) -> pd.DataFrame:
    """Read a network as a table of edges, strongest first.

    Works for every network in ``adata.varp``: the scores that a function of :mod:`sctrellis.tl` wrote and the known
    edges of ``pp.network``. Each stored pair is a row, also one with score 0; pairs that are not stored were not
    scored and are absent.

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
    DataFrame
        One row per edge with the columns

        - ``source``, ``target``: gene names of regulator and target;
        - ``weight``: the stored value, with its sign, float32; the probability where that is a log odds, whose sign is
          not that of an effect;
        - ``score``: its absolute value. A known non-edge, stored as -1 by ``pp.network``, has score 0;
        - ``std``, ``prob``, ``qval``: values of the same pairs in ``adata.varp[key + "_std"]`` and so on, only where
          these slots exist; NaN where they lack the pair.

        Rows run from the highest score to the lowest; equal scores are ordered by source, then by target, both
        alphabetically, so that the table does not depend on the order of the genes.

        ``.attrs["audit"]`` of an inferred network is ``"audited"`` or begins with ``"UNAUDITED"``.

    Raises
    ------
    KeyError
        If there is no such network.
    ValueError
        If a gene is unknown, a number is out of range, gene names are not unique or the network holds NaN; with
        ``settings.audit = "error"``, if the network was inferred and not audited.

    Warns
    -----
    NotAuditedWarning
        If :func:`sctrellis.tl.audit` has not looked at an inferred network (``settings.audit = "warn"``).

    Notes
    -----
    Filters apply in the order ``regulators`` and ``targets``, ``min_score``, ``n_top_per_target``, ``n_top``; each sees
    what the ones before it left. ``n_top`` selects by partition, so that a few edges out of many millions cost one pass
    rather than a sort.

    Examples
    --------
    >>> import anndata, numpy as np, sctrellis as tr
    >>> from scipy.sparse import csr_matrix
    >>> adata = anndata.AnnData(np.ones((3, 3), np.float32))
    >>> adata.var_names = ["GATA1", "KLF1", "SPI1"]
    >>> adata.varp["net"] = csr_matrix(np.array([[0, 0.9, -0.4], [0, 0, 0], [-0.7, 0.1, 0]], np.float32))
    >>> tr.get.edges(adata, "net", n_top=2)
      source target  weight  score
    0  GATA1   KLF1     0.9    0.9
    1   SPI1  GATA1    -0.7    0.7
    """
    n_top = None if n_top is None else checks.integer("n_top", n_top)
    n_top_per_target = None if n_top_per_target is None else checks.integer("n_top_per_target", n_top_per_target)
    ad = slots.source(adata, mod)
    pairs = _pairs.read(ad, key, regulators=regulators, targets=targets, min_score=min_score)
    if n_top_per_target is not None:
        pairs = pairs.strongest_each(pairs.column, n_top_per_target)
    if n_top is not None:
        pairs = pairs.strongest(n_top)
    pairs = pairs.ordered()
    table = {
        "source": pairs.genes[pairs.row],
        "target": pairs.genes[pairs.column],
        "weight": pairs.weight,
        "score": pairs.score,
    }
    for extra in _EXTRAS:
        if f"{key}_{extra}" in ad.varp:
            network = slots.read_network(ad, f"{key}_{extra}", argument="key")
            table[extra] = slots.values_at(network, pairs.row, pairs.column)
    found = pd.DataFrame(table)
    if said := audited.say(ad, key):
        found.attrs["audit"] = said
    return found
