from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis._core import audited, checks, slots
from sctrellis.get import _pairs

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def decoupler_net(
    adata: "AnnData | MuData",
    key: str,
    *,
    n_targets: int | None = 100,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    min_score: float | None = None,
    mod: str | None = None,
) -> pd.DataFrame:
    """Read a network in the form that the methods of decoupler take: the strongest targets of each regulator.

    The weights keep the sign that the method gave them; where a method has no signs they are all positive, and an
    activity then says how strongly the targets of a regulator are expressed, not whether it activates them.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the network in ``adata.varp``.
    n_targets
        Keep this many of the strongest targets of each regulator; None keeps all.
    regulators
        Keep edges out of these genes. Each must be in ``adata.var_names``.
    targets
        Keep edges into these genes. Each must be in ``adata.var_names``.
    min_score
        Keep edges with at least this score, in the units of the method; at least 0.
    mod
        Modality to use where ``adata`` is a MuData.

    Returns
    -------
    DataFrame
        Columns ``source``, ``target`` and ``weight`` (float32, never 0), one row per pair, ordered by source and within
        it from the strongest to the weakest; ready for ``decoupler.mt.ulm(adata, net)``. decoupler leaves out
        regulators with fewer than five targets unless its ``tmin`` says otherwise. A gene that regulates itself and
        known non-edges are left out. Log odds are given as probabilities: decoupler reads a negative weight as
        repression. ``.attrs["audit"]`` is as that of :func:`sctrellis.get.edges`.

    Raises
    ------
    KeyError
        If there is no such network.
    ValueError
        As :func:`sctrellis.get.edges`, which warns of networks without an audit too.

    References
    ----------
    Badia-i-Mompel et al. (2022), decoupleR: ensemble of computational methods to infer biological activities from
    omics data, Bioinformatics Advances 2, vbac016.

    Examples
    --------
    >>> import anndata, numpy as np, sctrellis as tr
    >>> from scipy.sparse import csr_matrix
    >>> adata = anndata.AnnData(np.ones((3, 3), np.float32))
    >>> adata.var_names = ["GATA1", "KLF1", "SPI1"]
    >>> adata.varp["net"] = csr_matrix(np.array([[0, 0.9, -0.4], [0, 0, 0], [-0.7, 0.1, 0]], np.float32))
    >>> tr.get.decoupler_net(adata, "net", n_targets=1)
      source target  weight
    0  GATA1   KLF1     0.9
    1   SPI1  GATA1    -0.7
    """
    n_targets = None if n_targets is None else checks.integer("n_targets", n_targets)
    ad = slots.source(adata, mod)
    pairs = _pairs.read(ad, key, regulators=regulators, targets=targets, min_score=min_score)
    pairs = pairs.take((pairs.score > 0) & (pairs.row != pairs.column))
    place = np.argsort(np.argsort(pairs.genes))
    pairs = pairs.strongest_each(place[pairs.row], len(pairs.genes) if n_targets is None else n_targets)
    net = pd.DataFrame({"source": pairs.genes[pairs.row], "target": pairs.genes[pairs.column], "weight": pairs.weight})
    if said := audited.say(ad, key):
        net.attrs["audit"] = said
    return net
