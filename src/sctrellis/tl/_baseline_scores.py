"""Scores of the baselines on rows of cells: what `tl.baseline` stores and `tl.evaluate` puts beside a method."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs
from sctrellis._core.rows import Rows
from sctrellis._settings import settings
from sctrellis.metrics import _association as association

Baseline = Literal["pearson", "spearman", "pearson_pc1", "partial", "ridge", "gbm", "degree", "random"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

CHUNK = 2**27
"""Values of the genes held dense at once (0.5 GB) where a method needs whole columns."""
TARGETS_PER_TASK = 8
"""Genes a worker boosts before it reports back."""


def _held_at_once() -> int:
    """Return how many values may be dense at once: `CHUNK`, or fewer where the user allows less."""
    return min(CHUNK, int(settings.max_dense_gb * 1e9 / 4))


@dataclass(frozen=True)
class BaselineResult:
    """What a baseline found.

    Parameters
    ----------
    scores : float32, (n_regulators, n_genes)
        Edge scores; NaN where a pair is not scored.
    fit
        Facts of the fit, for the record.
    tables
        Tables and arrays, for the record.
    """

    scores: np.ndarray
    fit: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Problem:
    """The genes that vary, and which of them regulate (positions among them)."""

    rows: Rows
    genes: np.ndarray
    regulators: np.ndarray
    standardise: association.Standardiser
    regulator_mask: np.ndarray
    network: sparse.csr_matrix | None
    folds: sparse.csr_matrix | None
    seed: int
    n_jobs: int
    progress: bool | None

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield positions of genes and their whole columns, float32 (n_cells, n)."""
        n_cells, n_genes = self.rows.shape
        width = max(1, _held_at_once() // n_cells)
        for start in range(0, n_genes, width):
            positions = np.arange(start, min(start + width, n_genes))
            yield positions, self.rows.select(positions).in_memory()


def baseline_scores(
    method: Baseline,
    rows: Rows,
    regulators: np.ndarray,
    *,
    network: sparse.csr_matrix | None = None,
    folds: sparse.csr_matrix | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> np.ndarray:
    """Return the edge scores of one baseline.

    Parameters
    ----------
    method
        One of :data:`BASELINES`.
    rows
        Log-normalised expression, cells x genes.
    regulators
        Boolean mask of the regulators over the genes.
    network, folds
        Known edges and the fold of each pair; ``"degree"`` counts the train edges and needs both.
    seed
        Seed of ``"ridge"`` (cross-validation), ``"gbm"`` and ``"random"``.
    n_jobs
        Workers of ``"gbm"``; they do not change the result.
    progress
        Progress bar of ``"gbm"``.

    Returns
    -------
    float32, (n_regulators, n_genes)
        One row per True of `regulators`, in order. NaN where a pair is not scored: constant genes, and for ``"gbm"``
        self pairs, which mean nothing in the others.
    """
    return fit_baseline(
        method, rows, regulators, network=network, folds=folds, seed=seed, n_jobs=n_jobs, progress=progress
    ).scores


def fit_baseline(
    method: Baseline,
    rows: Rows,
    regulators: np.ndarray,
    *,
    network: sparse.csr_matrix | None = None,
    folds: sparse.csr_matrix | None = None,
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> BaselineResult:
    """Return :func:`baseline_scores` with the facts of the fit."""
    checks.choice("method", method, BASELINES)
    std = rows.summary.std
    genes = np.flatnonzero(std > 0)
    varying = regulators & (std > 0)
    if not varying.any():
        msg = (
            f"None of the {int(regulators.sum())} candidate regulators varies over the cells, so nothing can be "
            "scored. Choose others with `regulators=` or `sctrellis.pp.regulators`."
        )
        raise ValueError(msg)
    if len(genes) < 2:
        msg = f"Only one of the {len(std)} genes varies over the cells: there is no pair to score."
        raise ValueError(msg)
    problem = _Problem(
        rows=rows if len(genes) == len(std) else rows.select(genes),
        genes=genes,
        regulators=np.flatnonzero(varying[genes]),
        standardise=association.Standardiser(rows.summary.mean[genes], std[genes]),
        regulator_mask=varying[genes],
        network=network,
        folds=folds,
        seed=seed,
        n_jobs=n_jobs,
        progress=progress,
    )
    found = _FITS[method](problem)
    scores = np.full((int(regulators.sum()), len(std)), np.nan, dtype=np.float32)
    scores[np.ix_(np.flatnonzero(varying[regulators]), genes)] = found.scores
    return BaselineResult(scores, found.fit, found.tables)


def _pearson(problem: _Problem) -> BaselineResult:
    correlation, _ = association.cross_correlation(problem.rows.blocks(), problem.standardise, problem.regulators)
    return BaselineResult(np.clip(correlation, -1, 1))


def _spearman(problem: _Problem) -> BaselineResult:
    n_cells, n_genes = problem.rows.shape
    ranks = association.standard_ranks(problem.rows.select(problem.regulators).in_memory())
    scores = np.empty((len(problem.regulators), n_genes), dtype=np.float32)
    for positions, columns in problem.chunks():
        scores[:, positions] = ranks.T @ association.standard_ranks(columns) / n_cells
    return BaselineResult(np.clip(scores, -1, 1))


def _pearson_pc1(problem: _Problem) -> BaselineResult:
    rows = problem.rows
    correlation, _ = association.cross_correlation(rows.blocks(), problem.standardise, problem.regulators)

    def z_blocks() -> Iterator[np.ndarray]:
        return map(problem.standardise, rows.blocks())

    kept = list(z_blocks()) if rows.shape[0] * rows.shape[1] <= _held_at_once() else None
    value, vector = association.leading_component(z_blocks if kept is None else lambda: kept, rows.shape[1])
    scores = association.remove_component(correlation, problem.regulators, value, vector)
    return BaselineResult(np.clip(scores, -1, 1), {"pc1_share": value / rows.shape[1]})


def _partial(problem: _Problem) -> BaselineResult:
    n_cells, n_genes = problem.rows.shape
    remedy = "Keep fewer genes, as in `adata[:, genes].copy()`."
    if n_cells < n_genes:
        checks.dense_size((2, n_cells, n_genes), "method='partial'", remedy, itemsize=8)
        z = np.concatenate([problem.standardise(block, np.float64) for block in problem.rows.blocks()])
        scores, shrinkage = association.partial_from_cells(z, problem.regulators)
    else:
        checks.dense_size((2, n_genes, n_genes), "method='partial'", remedy, itemsize=8)
        everything = np.arange(n_genes)
        correlation, fourth = association.cross_correlation(problem.rows.blocks(), problem.standardise, everything)
        scores, shrinkage = association.partial_from_covariance(correlation, fourth, n_cells, problem.regulators)
    return BaselineResult(np.clip(scores, -1, 1), {"shrinkage": shrinkage})


def _ridge(problem: _Problem) -> BaselineResult:
    from sctrellis.models import ridge_network  # torch loads here, not at import

    found = ridge_network(problem.rows, problem.regulator_mask, seed=problem.seed)
    return BaselineResult(found.weights, {"rho": float(found.rho)}, {"cv": pd.DataFrame(dict(found.cv))})


def _gbm(problem: _Problem) -> BaselineResult:
    from joblib import Parallel, delayed

    from sctrellis.metrics._boosting import boost_targets

    n_genes = problem.rows.shape[1]
    x = problem.rows.select(problem.regulators).in_memory()
    scores = np.empty((len(problem.regulators), n_genes), dtype=np.float32)
    n_trees = np.empty(n_genes, dtype=np.int64)
    own = np.full(n_genes, -1)
    own[problem.regulators] = np.arange(len(problem.regulators))
    # Seeded by the gene's place in the data, so that neither the workers nor constant genes elsewhere matter.
    seeds = np.array(
        [np.random.SeedSequence(problem.seed, spawn_key=(int(g),)).generate_state(1)[0] for g in problem.genes]
    )
    workers = Parallel(n_jobs=problem.n_jobs, return_as="generator")
    with logs.progress_bar(n_genes, "gbm", progress=problem.progress, unit="gene") as bar:
        for positions, columns in problem.chunks():
            tasks = np.array_split(np.arange(len(positions)), -(-len(positions) // TARGETS_PER_TASK))
            results = workers(
                delayed(boost_targets)(x, columns[:, t], own[positions[t]], seeds[positions[t]]) for t in tasks
            )
            for task, (importance, counts) in zip(tasks, results, strict=True):
                scores[:, positions[task]] = importance
                n_trees[positions[task]] = counts
                bar.update(len(task))
    return BaselineResult(scores, {"median_trees": float(np.median(n_trees)), "max_trees": int(n_trees.max())})


def _degree(problem: _Problem) -> BaselineResult:
    if problem.network is None:
        msg = "`method='degree'` counts known edges: name them with `network=`, a key of `adata.varp`."
        raise ValueError(msg)
    if problem.folds is None:
        msg = (
            "`method='degree'` counts the train edges of `network`, which has no folds: it would be judged on edges "
            "that it has seen. Run `sctrellis.pp.split_edges(adata, network)` first."
        )
        raise ValueError(msg)
    train = (problem.network > 0).multiply(problem.folds == 1).tocoo()
    kept = train.row != train.col
    if not kept.any():
        msg = "`network` has no edge in the train fold, so `method='degree'` has nothing to count. Split it again."
        raise ValueError(msg)
    n_vars = problem.network.shape[0]
    out_degree = np.bincount(train.row[kept], minlength=n_vars)[problem.genes[problem.regulators]]
    in_degree = np.bincount(train.col[kept], minlength=n_vars)[problem.genes]
    scores = np.log1p(out_degree)[:, None] + np.log1p(in_degree)
    return BaselineResult(scores, {"n_train_edges": int(kept.sum())})


def _random(problem: _Problem) -> BaselineResult:
    shape = (len(problem.regulators), problem.rows.shape[1])
    return BaselineResult(np.random.default_rng(problem.seed).random(shape, dtype=np.float32))


_FITS: dict[Baseline, Callable[[_Problem], BaselineResult]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_pc1": _pearson_pc1,
    "partial": _partial,
    "ridge": _ridge,
    "gbm": _gbm,
    "degree": _degree,
    "random": _random,
}
