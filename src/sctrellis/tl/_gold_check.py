from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sctrellis import metrics
from sctrellis._core import checks, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import Keys
from sctrellis.tl._evaluate import _check_labels, _positions

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def gold_check(
    adata: "AnnData | MuData",
    key: str = "knockoffs",
    *,
    network: str = "network",
    q: float | Sequence[float] = (0.05, 0.1, 0.2),
    n_boot: int = 500,
    n_perm: int = 1000,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Put the false discovery rate that q-values claim beside known edges: how incomplete must these be?

    A reference never holds all edges, so that a selected pair that it lacks need not be false. But the fewer of the
    selected pairs it holds, the more it would have to lack for the claim to be true. Reads no expression.

    Parameters
    ----------
    adata
        Object with q-values and a known network in ``.varp``; a MuData with ``mod``.
    key
        The network whose q-values are in ``adata.varp[key + "_qval"]``, as :func:`sctrellis.tl.knockoffs` and
        :func:`sctrellis.tl.partial_test` write them.
    network
        Key of ``adata.varp`` with known edges.
    q
        Claimed rates, in (0, 1).
    n_boot
        Replicates of the two-way bootstrap.
    n_perm
        Random references with the same degrees; 0 leaves ``null`` and ``p`` NaN.
    seed
        Seed of all draws, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers of the random references; None is ``settings.n_jobs``, -1 all cores. The result does not depend on them.
    key_added
        Key of ``adata.uns``; None is `key` with ``"_gold_check"``.

    Returns
    -------
    DataFrame
        One row per claimed rate, also in ``adata.uns[key_added]["table"]``; see :func:`sctrellis.metrics.gold_check`
        for the columns. ``completeness`` is the largest share of the true edges that the reference may hold if the
        claim is true.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table`` and ``words``.

    Raises
    ------
    KeyError
        If q-values, the known network or a modality is missing.
    ValueError
        If none or all of the pairs are known edges, a single regulator or target is left, and on numbers out of range.

    Notes
    -----
    The pairs are those with a q-value whose regulator has a known edge and whose target has one, without self pairs:
    of other genes the reference says nothing. A rate that holds over all pairs need not hold over these; taken as a
    claim about the testable pairs it is one about a sample of all.

    Try references of different kinds, such as binding and perturbation: each lacks other edges.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(400, 60, 15, density=0.1)
    >>> tr.tl.partial_test(adata)
    >>> table = tr.tl.gold_check(adata, "partial_test", network="truth", q=0.1, n_perm=99)
    >>> bool(table["p"].item() <= 0.05)
    True
    """
    values = locals()
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    _, ad = slots.target(adata, mod=mod)
    keys = Keys(key)
    slot = Keys.for_method(keys.stage("gold_check"), key_added)
    remedy = "`sctrellis.tl.knockoffs` and `sctrellis.tl.partial_test` write q-values."
    checks.has_slot("key", keys.qval, ad.varp.keys(), "adata.varp", remedy)
    claimed, known = slots.read_network(ad, keys.qval, argument="key"), slots.read_network(ad, network)
    row, column = _positions(universes.pairs(known, None, "beeline_tf"))
    qvalue = slots.values_at(claimed, row, column)
    there = np.isfinite(qvalue)
    row, column, qvalue = row[there], column[there], qvalue[there].astype(np.float64)
    labels = slots.values_at(known, row, column) > 0
    for what, places in (("regulator", row), ("target", column)):
        if len(np.unique(places)) < 2:
            msg = f"`network`: only one {what} of {network!r} has q-values in {key!r}. Name a reference with more."
            raise ValueError(msg)
    _check_labels(labels, network, "all", "beeline_tf", None)
    found = metrics.gold_check(
        qvalue, labels, rows=row, columns=column, q=q, n_boot=n_boot, n_perm=n_perm, seed=seed, n_jobs=workers
    )
    entry = record.build(
        "gold_check",
        ad,
        params=record.arguments(gold_check, values),
        seed=seed,
        slots={"table": f"uns/{slot.record}/table"},
        extra={"table": found.table, "words": found.words},
    )
    logs.logger.info("%s: %s", key, found.words)
    logs.added(slots.write(ad, uns={slot.record: entry}))
    return found.table
