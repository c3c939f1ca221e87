from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from sctrellis._core import checks, draws, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import Keys

if TYPE_CHECKING:
    from anndata import AnnData

Scheme = Literal["edge", "target", "regulator", "both", "infosem"]
SCHEMES: tuple[Scheme, ...] = ("edge", "target", "regulator", "both", "infosem")
TRAIN, VALIDATION, TEST = 1, 2, 3
FOLDS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
SS, SU, US, UU = 1, 2, 3, 4
CLASSES = {"seen_seen": SS, "seen_unseen": SU, "unseen_seen": US, "unseen_unseen": UU}
SEEN_TEST = 0.2
"""Share of the pairs of training genes that "infosem" holds out, to test seen genes as well."""


@dataclass(frozen=True)
class Pairs:
    """The universe as arrays, one entry per pair, and a hash of every gene's name."""

    row: np.ndarray
    column: np.ndarray
    positive: np.ndarray
    names: np.ndarray

    @property
    def out_degree(self) -> np.ndarray:
        """Number of known targets of every gene."""
        return np.bincount(self.row[self.positive], minlength=len(self.names))


def split_edges(
    adata: "AnnData",
    network: str = "network",
    *,
    scheme: Scheme = "edge",
    universe: universes.Universe = "beeline_tf",
    test_frac: float = 0.25,
    val_frac: float = 0.1,
    seed: int | None = 0,
    mod: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Divide the candidate pairs of a known network into training, validation and test; expression is not read.

    Parameters
    ----------
    adata
        AnnData with a known network, or a MuData with ``mod``.
    network
        Key of the known network in ``adata.varp``, as :func:`sctrellis.pp.network` writes it.
    scheme
        What is held out:

        - ``"edge"``: pairs at random, in the same shares for every regulator and for edges and other pairs alike. Tests
          whether known genes can be completed; a model that only knows how many targets each regulator has scores well.
        - ``"target"``: all pairs of some targets. Regulators are still known by their number of targets.
        - ``"regulator"``: all pairs of some regulators.
        - ``"both"``: genes. Training pairs join training genes, test pairs join test genes, and pairs between the parts
          are in no fold, so that nothing learned about a gene's identity can help.
        - ``"infosem"``: ``"both"``, and beside it test pairs with one seen gene or two; see Notes.
    universe
        Candidate pairs: ``"beeline_tf"`` (regulators with an edge x genes with an edge), ``"beeline_all"`` (all ordered
        pairs of genes with an edge), ``"listed"`` (regulators of ``adata.var["is_regulator"]`` x all genes) or
        ``"labelled"`` (pairs stored in the network). Never a gene with itself.
    test_frac, val_frac
        Shares for testing, in (0, 1), and for validation, in [0, 1): of pairs for ``"edge"``, of genes otherwise.
    seed
        Seed, in [0, 2**32); None draws one and records it.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[network + "_fold"]`` : csr_matrix, int8, shape (n_vars, n_vars)
        1 train, 2 validation, 3 test; absent: outside the universe, or between the parts.
    ``adata.varp[network + "_class"]`` : csr_matrix, int8, shape (n_vars, n_vars)
        ``scheme="infosem"`` only, for every pair with a fold: 1 both genes seen, 2 regulator seen and target unseen, 3
        regulator unseen and target seen, 4 both unseen.
    ``adata.uns[network + "_fold"]`` : dict
        Record; ``counts`` holds pairs and known edges per fold, and ``crossing``, the pairs in no fold.

    Raises
    ------
    KeyError
        Where there is no such network, or ``universe="listed"`` finds no regulators.
    ValueError
        Where a fraction is out of range, there are too few genes or edges to divide, or a draw leaves training or test
        without a known edge.

    Notes
    -----
    Draws are keyed by gene names (sha256) and the seed, not by positions: the order of genes does not matter, and with
    ``"edge"`` the split of one regulator stays as it is when another regulator is dropped. Shares that are no whole
    number of pairs are rounded up or down at random, without bias: of many regulators with one target each, a quarter
    are tested.

    Where regulators are held out, they are drawn from thirds by their number of known targets, if there are at
    least six, so that hubs fall on both sides. In ``"both"`` and ``"infosem"`` a gene is in one part in either role.

    ``"infosem"`` follows the unseen-gene protocol of InfoSEM as far as it has been published. Regulators with a known
    edge and all other genes are each divided; *seen* genes are those for training, the validation and test genes are
    *unseen*.

    - Training: pairs of two seen genes, less a fifth (drawn as in ``"edge"``), which are test pairs of class 1.
    - Validation: pairs of two validation genes (class 4), so that a model is selected for what it has not seen.
    - Test: pairs of two test genes (class 4: the headline), of a seen regulator and a test target (class 2), and of a
      test regulator and a seen target (class 3).
    - Pairs of a validation gene with any other gene are in no fold.

    The unseen-unseen test is ``(fold == 3) & (class == 4)``. Splits differ much from one another where there are few
    regulators: use many seeds, and compare methods split by split. Time and memory are linear in the number of pairs.

    References
    ----------
    InfoSEM: Proceedings of Machine Learning Research 267 (2025), arXiv 2503.04483. BEELINE's candidate pairs: Pratapa
    et al., Nature Methods 17 (2020).

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> genes = [f"g{i}" for i in range(8)]
    >>> adata = anndata.AnnData(np.ones((3, 8), dtype="float32"), var=pd.DataFrame(index=genes))
    >>> edges = pd.DataFrame({"source": ["g0"] * 4 + ["g1"] * 4, "target": genes[2:6] + genes[4:]})
    >>> tr.pp.network(adata, edges)
    >>> tr.pp.split_edges(adata, val_frac=0)
    >>> counts = adata.uns["network_fold"]["counts"]
    >>> sum(counts["pairs"].values()) == counts["universe"] == 14
    True
    """
    params = record.arguments(split_edges, locals())
    root, ad = slots.target(adata, copy=copy, mod=mod)
    checks.choice("scheme", scheme, SCHEMES)
    test_frac = checks.number("test_frac", test_frac, low=0, high=1, open_low=True, open_high=True)
    val_frac = checks.number("val_frac", val_frac, low=0, high=1, open_high=True)
    if test_frac + val_frac >= 1:
        msg = (
            f"Expected `test_frac` + `val_frac` to be below 1, found {test_frac:g} + {val_frac:g}: nothing is left to "
            "train on."
        )
        raise ValueError(msg)
    used = checks.seed(seed)
    checks.gene_names(ad.var_names)
    known = slots.read_network(ad, network)
    mask = slots.read_regulators(ad) if universe == "listed" else None
    candidates = universes.pairs(known, mask, universe)
    pairs = _pairs(candidates, known, ad.var_names)
    if not pairs.positive.any():
        msg = (
            f"`adata.varp[{network!r}]` has no known edge among its {len(pairs.row):,} candidate pairs: nothing to "
            "split."
        )
        raise ValueError(msg)

    fold, kind = assign(pairs, scheme, test_frac, val_frac, used)
    headline = (fold == TEST) & ((kind == UU) if scheme == "infosem" else True)
    _check_positives(pairs, fold, headline, val_frac, scheme, used)

    keys = Keys(network)
    shape = (ad.n_vars, ad.n_vars)
    inside = fold > 0
    index = (pairs.row[inside], pairs.column[inside])
    varp = {keys.fold: sparse.csr_matrix((fold[inside], index), shape=shape)}
    places = {"fold": f"varp/{keys.fold}"}
    class_key = keys.stage("class")
    # Classes of an earlier split must not outlive it.
    if scheme == "infosem" or class_key in ad.varp:
        varp[class_key] = sparse.csr_matrix((kind[inside], index), shape=shape)
        varp[class_key].eliminate_zeros()
        places["class"] = f"varp/{class_key}"
    counts = _counts(pairs, fold, kind if scheme == "infosem" else None)
    uns = {
        keys.fold: record.build(
            "split_edges", ad, params=params, seed=used, slots=places, extra={"scheme": scheme, "counts": counts}
        )
    }
    logs.logger.info(
        "%d candidate pairs: %s; %d between the parts",
        counts["universe"],
        ", ".join(f"{n} {name} ({counts['edges'][name]} known edges)" for name, n in counts["pairs"].items()),
        counts["crossing"],
    )
    logs.added(slots.write(ad, varp=varp, uns=uns))
    return root if copy else None


def assign(pairs: Pairs, scheme: Scheme, test: float, val: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the fold of every pair (int8; 0 = none) and, for "infosem", the class of those with a fold."""
    none = np.zeros(len(pairs.row), dtype=np.int8)
    if scheme == "edge":
        return _by_pair(pairs, test, val, seed), none
    if scheme in ("target", "regulator"):
        ends = pairs.column if scheme == "target" else pairs.row
        part = np.zeros(len(pairs.names), dtype=np.int8)
        strata = None if scheme == "target" else pairs.out_degree
        _divide(part, np.unique(ends), pairs, test, val, seed, what=f"{scheme}s", strata=strata)
        return part[ends], none

    part = np.zeros(len(pairs.names), dtype=np.int8)
    degree = pairs.out_degree
    genes = np.union1d(pairs.row, pairs.column)
    regulators = genes[degree[genes] > 0]
    _divide(part, regulators, pairs, test, val, seed, what="regulators with a known edge", strata=degree)
    others = genes[degree[genes] == 0]
    if len(others):
        _divide(part, others, pairs, test, val, seed, what="")
    row, column = part[pairs.row], part[pairs.column]
    fold = np.where(row == column, row, 0).astype(np.int8)
    if scheme == "both":
        return fold, none

    seen_row, seen_column = row == TRAIN, column == TRAIN
    kind = np.where(seen_row, np.where(seen_column, SS, SU), np.where(seen_column, US, UU)).astype(np.int8)
    fold[(seen_row & (column == TEST)) | ((row == TEST) & seen_column)] = TEST
    seen = kind == SS
    subset = Pairs(pairs.row[seen], pairs.column[seen], pairs.positive[seen], pairs.names)
    fold[seen] = _by_pair(subset, SEEN_TEST, 0.0, seed)
    return fold, kind


def _pairs(candidates: sparse.csr_matrix, known: sparse.csr_matrix, var_names: Iterable[str]) -> Pairs:
    candidates = sparse.csr_matrix(candidates)
    # Candidates count 1 and those that are known edges 2, in one matrix with one order of entries.
    marked = (candidates.astype(np.int8) + candidates.multiply(known > 0).astype(np.int8)).tocoo()
    return Pairs(marked.row, marked.col, marked.data == 2, draws.hashes(var_names))


def _by_pair(pairs: Pairs, test: float, val: float, seed: int) -> np.ndarray:
    """Return the fold of every pair, cut within each regulator and, there, within edges and other pairs."""
    group = 2 * pairs.row.astype(np.int64) + pairs.positive
    key = draws.uniform(seed, "pair", pairs.names[pairs.row], pairs.names[pairs.column])
    order = np.lexsort((key, group))
    size = np.bincount(group, minlength=2 * len(pairs.names))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    # One shift for each group rounds its cuts without bias: a lone edge is tested with probability `test`.
    shift = draws.uniform(seed, "cut", np.repeat(pairs.names, 2), np.tile(np.arange(2), len(pairs.names)))
    n_test = np.floor(size * test + shift)
    n_held = np.floor(size * (test + val) + shift)
    return np.where(rank < n_test[group], TEST, np.where(rank < n_held[group], VALIDATION, TRAIN)).astype(np.int8)


def _divide(
    part: np.ndarray,
    genes: np.ndarray,
    pairs: Pairs,
    test: float,
    val: float,
    seed: int,
    *,
    what: str,
    strata: np.ndarray | None = None,
) -> None:
    """Write the part of each of ``genes``, in equal shares from the thirds of ``strata`` where there are six or more.

    Where ``what`` says what the genes are, every part must get one.
    """
    n = len(genes)
    n_test, n_val = int(test * n + 0.5), int(val * n + 0.5)
    if what:
        n_test, n_val = max(n_test, 1), max(n_val, 1) if val else 0
        if n_test + n_val >= n:
            parts = "train, validate and test" if val else "train and test"
            msg = f"Too few {what} to {parts} on different ones: found {n}. Use `scheme='edge'`, or other fractions."
            raise ValueError(msg)
    key = draws.uniform(seed, "gene", pairs.names[genes])
    third = np.zeros(n, dtype=np.int64)
    if strata is not None and n >= 6:
        third[np.lexsort((key, strata[genes]))] = np.arange(n) * 3 // n
    size = np.bincount(third, minlength=3)
    tested = _shares(size, n_test)
    validated = _shares(size - tested, n_val)
    # Within a third genes are in the order of their key; where thirds are by rank, ties have that order too.
    draw = draws.uniform(seed, "part", pairs.names[genes])
    order = np.lexsort((draw, third))
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n) - (np.cumsum(size) - size)[third[order]]
    held = tested + validated
    part[genes] = np.where(rank < tested[third], TEST, np.where(rank < held[third], VALIDATION, TRAIN))


def _shares(size: np.ndarray, total: int) -> np.ndarray:
    """Return how many of ``total`` each group gives: its share, rounded so that the sum is ``total``."""
    upto = np.floor(total * np.cumsum(size) / max(size.sum(), 1) + 0.5).astype(np.int64)
    return np.diff(upto, prepend=0)


def _check_positives(
    pairs: Pairs, fold: np.ndarray, headline: np.ndarray, val_frac: float, scheme: str, seed: int
) -> None:
    remedy = "Use another `seed`, a larger `test_frac`, or `scheme='edge'`."
    n_known = int(pairs.positive.sum())
    for name, where in (("training", fold == TRAIN), ("test", headline)):
        if not (where & pairs.positive).any():
            kept = "two unseen genes" if name == "test" and scheme == "infosem" else f"the {name} part"
            msg = (
                f"No known edge falls in {kept} (scheme {scheme!r}, seed {seed}; {n_known:,} known edges in "
                f"{len(pairs.row):,} candidate pairs). {remedy}"
            )
            raise ValueError(msg)
    if val_frac and not ((fold == VALIDATION) & pairs.positive).any():
        checks.warn(
            f"No known edge falls in the validation part (scheme {scheme!r}, seed {seed}): a model cannot be selected "
            "on it. "
            "Use another `seed`, a larger `val_frac`, or `val_frac=0`."
        )


def _counts(pairs: Pairs, fold: np.ndarray, kind: np.ndarray | None) -> dict[str, Any]:
    def tally(where: np.ndarray) -> dict[str, int]:
        return {name: int((where & (fold == code)).sum()) for name, code in FOLDS.items()}

    everything = np.ones(len(fold), dtype=bool)
    counts: dict[str, Any] = {
        "universe": len(fold),
        "universe_edges": int(pairs.positive.sum()),
        "crossing": int((fold == 0).sum()),
        "crossing_edges": int(((fold == 0) & pairs.positive).sum()),
        "pairs": tally(everything),
        "edges": tally(pairs.positive),
    }
    if kind is not None:
        test = fold == TEST
        counts["test_pairs"] = {name: int((test & (kind == code)).sum()) for name, code in CLASSES.items()}
        counts["test_edges"] = {
            name: int((test & (kind == code) & pairs.positive).sum()) for name, code in CLASSES.items()
        }
    return counts
