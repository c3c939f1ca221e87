"""Which labels of a known network a fit may see."""

from typing import Any, Literal

import numpy as np

from sctrellis._core import checks, slots
from sctrellis._core.logs import logger

Negatives = Literal["labelled", "train"]


def known_labels(adata: Any, network: str, regulators: np.ndarray, negatives: Negatives = "labelled") -> np.ndarray:
    """Return the labels of a known network that a fit may see, those of the train fold only where there are folds.

    Parameters
    ----------
    adata
        The AnnData.
    network
        Key of ``.varp`` with known edges.
    regulators : (n_vars,), bool
        The regulators.
    negatives
        ``"labelled"``: only pairs stored as known non-edges; ``"train"``: every other pair of the train fold too.

    Returns
    -------
    np.ndarray, int8, shape (n_regulators, n_vars)
        1 known edge, -1 known non-edge, 0 unknown.
    """
    checks.choice("negatives", negatives, ("labelled", "train"))
    stored = slots.read_network(adata, network, argument="known")
    folds = slots.read_folds(adata, network)
    labels = np.sign(stored[regulators].toarray()).astype(np.int8)
    if folds is None:
        if negatives == "train":
            msg = (
                f"`negatives='train'` needs the train fold of `known={network!r}`: run "
                f"`sctrellis.pp.split_edges(adata, {network!r})` first, or use `negatives='labelled'`."
            )
            raise ValueError(msg)
    else:
        train = folds[regulators].toarray() == 1
        labels = np.where(train, labels, 0).astype(np.int8)
        if negatives == "train":
            labels[train & (labels == 0)] = -1
    index = np.flatnonzero(regulators)
    labels[np.arange(len(index)), index] = 0
    n_edges = int((labels == 1).sum())
    if n_edges == 0:
        where = "its train fold" if folds is not None else "it"
        msg = (
            f"`known={network!r}`: {where} has no edge from a regulator of this fit. Check "
            "`adata.var['is_regulator']`, or leave `known` out."
        )
        raise ValueError(msg)
    logger.info(
        "%s: %d known edges and %d known non-edges enter the prior", network, n_edges, int((labels == -1).sum())
    )
    return labels
