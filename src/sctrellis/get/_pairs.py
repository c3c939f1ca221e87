"""The stored pairs of a network as arrays, and the choice among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sctrellis._core import checks, slots


@dataclass(frozen=True)
class Pairs:
    """Pairs of a network, one entry each.

    Parameters
    ----------
    row, column
        Gene positions of regulator and target.
    weight
        Stored values; probabilities where those are log odds, whose sign would pass for that of an effect.
    score
        Absolute values of the weights; 0 for known non-edges.
    tie
        Place of the pair in the alphabetical order of source, then target: decides between equal scores.
    genes
        Names of all genes.
    """

    row: np.ndarray
    column: np.ndarray
    weight: np.ndarray
    score: np.ndarray
    tie: np.ndarray
    genes: np.ndarray

    def take(self, kept: np.ndarray) -> "Pairs":
        """Return the pairs at these positions, or where this mask is True."""
        return Pairs(self.row[kept], self.column[kept], self.weight[kept], self.score[kept], self.tie[kept], self.genes)

    def strongest(self, n: int) -> "Pairs":
        """Return the ``n`` pairs with the highest scores, unordered."""
        if n >= len(self.score):
            return self
        threshold = np.partition(self.score, len(self.score) - n)[len(self.score) - n]
        above = np.flatnonzero(self.score > threshold)
        level = np.flatnonzero(self.score == threshold)
        wanted = n - len(above)
        if wanted < len(level):
            level = level[np.argpartition(self.tie[level], wanted - 1)[:wanted]]
        return self.take(np.concatenate([above, level]))

    def strongest_each(self, group: np.ndarray, n: int) -> "Pairs":
        """Return the ``n`` pairs with the highest scores of each group, ordered by group and from high to low."""
        order = np.lexsort((self.tie, -self.score, group))
        ordered = group[order]
        # Where each group begins, repeated over its members: their distance from it is their rank.
        begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
        rank = np.arange(len(ordered)) - np.repeat(begins, np.diff(begins, append=len(ordered)))
        return self.take(order[rank < n])

    def ordered(self) -> "Pairs":
        """Return the pairs from the highest score to the lowest."""
        return self.take(np.lexsort((self.tie, -self.score)))


def read(
    ad: Any,
    key: str,
    *,
    regulators: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    min_score: float | None = None,
) -> Pairs:
    """Return the stored pairs of ``.varp[key]`` that lie between these genes and reach this score."""
    min_score = None if min_score is None else checks.number("min_score", min_score, low=0)
    checks.gene_names(ad.var_names)
    network = slots.read_network(ad, key, argument="key")
    if not np.isfinite(network.data).all():
        n_bad = int((~np.isfinite(network.data)).sum())
        msg = f"`adata.varp[{key!r}]` holds {n_bad} NaN or infinite scores. Fit it again, or set them to finite values."
        raise ValueError(msg)
    score = slots.read_scores(ad, key).data
    weight = score.astype(np.float32) if slots.holds_log_odds(ad, key) else network.data
    if _is_known(ad, key):
        score[network.data < 0] = 0
    row = np.repeat(np.arange(network.shape[0], dtype=np.int32), np.diff(network.indptr))

    mask = np.ones(len(score), dtype=bool)
    for argument, names, ends in (("regulators", regulators, row), ("targets", targets, network.indices)):
        if names is not None:
            chosen = np.zeros(ad.n_vars, dtype=bool)
            chosen[checks.gene_positions(argument, names, ad.var_names)] = True
            mask &= chosen[ends]
    if min_score is not None:
        mask &= score >= min_score

    genes = np.asarray(ad.var_names, dtype=object)
    rank = np.empty(len(genes), dtype=np.int64)
    rank[np.argsort(genes)] = np.arange(len(genes))
    row, column = row[mask], network.indices[mask]
    return Pairs(row, column, weight[mask], score[mask], rank[row] * len(genes) + rank[column], genes)


def _is_known(ad: Any, key: str) -> bool:
    """Whether the network was given by the user, so that -1 is a known non-edge and not an effect."""
    record = ad.uns.get(key)
    return isinstance(record, Mapping) and record.get("method") == "network"
