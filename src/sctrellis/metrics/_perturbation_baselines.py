from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sctrellis._core import checks
from sctrellis.metrics._perturbation_metrics import as_changes

N_NEIGHBOURS = 5
MAX_FITS = 50
"""Fits that leave something out; beyond it perturbations are left out in so many groups."""
_STRENGTHS = np.geomspace(1e-2, 1e3, 11)


def perturbation_baselines(
    changes: Any,
    perturbations: Sequence[Sequence[str]],
    wanted: Sequence[Sequence[str]] | None = None,
    *,
    excluded: Any = None,
    features: Mapping[str, Any] | None = None,
    seed: int | None = 0,
) -> dict[str, np.ndarray]:
    r"""Predict perturbations from the observed changes of *other* perturbations, in the simplest ways.

    A perturbation that was observed is predicted by fits that left it out.

    Parameters
    ----------
    changes : (n_perturbations, n_genes)
        Observed changes: mean after the perturbation minus mean of control cells.
    perturbations
        The genes of each perturbation; several for a combination.
    wanted
        The genes of each perturbation to predict; None predicts all observed ones.
    excluded : (n_perturbations, n_genes)
        Boolean; changes that are not learnt from, such as those of the perturbed genes themselves.
    features
        Vector of each gene for ``"linear"`` and ``"knn"``; genes may be missing.
    seed
        Seed of the groups that are left out together where more than 50 observed perturbations are predicted, in
        [0, 2**32); None draws one.

    Returns
    -------
    dict
        Predicted changes by name, each of shape (n_wanted, n_genes):

        ``"no_change"``
            Zero.
        ``"train_mean"``
            The mean of all other perturbations.
        ``"additive"``
            The sum of the changes of the single genes, the mean standing in for those not observed. Only where a
            combination is wanted.
        ``"linear"``
            Ridge regression of the change on the sum of the genes' features; the strength, infinity among them, is
            that of the smallest leave-one-out error within the training perturbations. Needs `features`.
        ``"knn"``
            The mean of the five perturbations nearest by features. Needs `features`.

        The mean stands in where a perturbed gene has no features.

    Raises
    ------
    ValueError
        With fewer than three perturbations, on arrays that do not match, and on values that are not finite.

    Notes
    -----
    Combinations that share a gene with what is predicted stay in training: a gene that was seen alone is predicted in
    company, as in common practice. An entry of `excluded` is replaced by the mean of the other training perturbations.

    References
    ----------
    :cite:p:`ahlmanneltze2025` for the training mean, the additive and the linear baseline.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> found = metrics.perturbation_baselines([[1.0], [2.0], [6.0]], [["a"], ["b"], ["c"]])
    >>> found["train_mean"].ravel().tolist()
    [4.0, 3.5, 1.5]
    """
    changes, seed = as_changes("changes", changes), checks.seed(seed)
    observed = [frozenset(map(str, genes)) for genes in perturbations]
    targets = observed if wanted is None else [frozenset(map(str, genes)) for genes in wanted]
    if len(observed) != len(changes):
        msg = f"Expected `perturbations` to have one entry for each of {len(changes)} changes, found {len(observed)}."
        raise ValueError(msg)
    if len(set(observed)) < max(3, len(observed)):
        msg = (
            f"Expected at least 3 different `perturbations`, each once, found {len(set(observed))} of {len(observed)}."
        )
        raise ValueError(msg)
    known = np.ones(changes.shape, bool) if excluded is None else ~np.asarray(excluded, dtype=bool)
    if known.shape != changes.shape:
        msg = f"Expected `excluded` to have shape {changes.shape} as `changes`, found {known.shape}."
        raise ValueError(msg)
    names = ["no_change", "train_mean"] + ["additive"] * any(len(genes) > 1 for genes in targets)
    names += ["linear", "knn"] if features else []
    found = {name: np.zeros((len(targets), changes.shape[1])) for name in names}
    vectors = _vectors(features or {}, observed), _vectors(features or {}, targets)

    position = {genes: i for i, genes in enumerate(observed)}
    own = np.array([position.get(genes, -1) for genes in targets])
    for fold in _folds(own, seed):
        train = np.setdiff1d(np.arange(len(observed)), own[fold])
        if len(train) < 2:
            continue
        mean, y = _filled(changes[train], known[train])
        found["train_mean"][fold] = mean
        if "additive" in found:
            rows = {observed[i]: row for i, row in zip(train, y, strict=True)}
            for i in fold:
                parts = [rows.get(frozenset([gene]), mean) for gene in targets[i]]
                found["additive"][i] = np.sum(parts, axis=0) if len(parts) > 1 else mean
        if features:
            found["linear"][fold] = mean + _ridge(vectors[0][train], y - mean, vectors[1][fold])
            found["knn"][fold] = _nearest(vectors[0][train], y, vectors[1][fold], mean)
    return found


def _folds(own: np.ndarray, seed: int) -> list[np.ndarray]:
    """Return groups of what is wanted: one fit for all that was not observed, and one for each group that was."""
    new, seen = np.flatnonzero(own < 0), np.flatnonzero(own >= 0)
    order = np.unique(own[seen])
    if len(order) > MAX_FITS:
        order = np.random.default_rng(seed).permutation(order)
    parts = np.array_split(order, min(len(order), MAX_FITS)) if len(order) else []
    return ([new] if len(new) else []) + [seen[np.isin(own[seen], part)] for part in parts]


def _vectors(features: Mapping[str, Any], perturbations: Sequence[frozenset[str]]) -> np.ndarray:
    """Return the sum of the features of each perturbation's genes; NaN where one has none."""
    usable = {gene: vector for gene, vector in features.items() if np.isfinite(vector).all()}
    size = len(next(iter(usable.values()))) if usable else 1
    missing = np.full(size, np.nan)
    return np.array([np.sum([usable.get(gene, missing) for gene in sorted(genes)], axis=0) for genes in perturbations])


def _filled(changes: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the known changes of each gene, 0 where there is none, and changes with it filled in."""
    count = known.sum(axis=0)
    mean = np.divide((changes * known).sum(axis=0), count, out=np.zeros(changes.shape[1]), where=count > 0)
    return mean, np.where(known, changes, mean)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return predictions of a ridge regression of ``y``, which has mean 0, less that mean."""
    usable = np.isfinite(x).all(axis=1)
    if usable.sum() < 3:
        return np.zeros((len(new), y.shape[1]))
    centre = x[usable].mean(axis=0)
    # At the centre a perturbation without features says nothing, and is predicted by the mean.
    x, new = (np.where(np.isfinite(rows), rows - centre, 0.0) for rows in (x, new))
    values, vectors = np.linalg.eigh(x @ x.T)
    values = np.maximum(values, 0.0)
    total = values.sum() / len(x)
    if total == 0:
        return np.zeros((len(new), y.shape[1]))
    rotated = vectors.T @ y
    best, chosen = np.inf, np.inf
    for strength in (*_STRENGTHS * total, np.inf):
        share = values / (values + strength)
        leverage = (vectors**2 * share).sum(axis=1) + 1 / len(x)
        residual = (y - vectors @ (share[:, None] * rotated)) / np.maximum(1 - leverage, 1e-6)[:, None]
        error = float((residual**2).mean())
        if error < best:
            best, chosen = error, strength
    return new @ (x.T @ (vectors @ (rotated / (values + chosen)[:, None])))


def _nearest(x: np.ndarray, y: np.ndarray, new: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the mean of the nearest rows; ``mean`` where there are no features."""
    usable = np.flatnonzero(np.isfinite(x).all(axis=1))
    found = np.tile(mean, (len(new), 1))
    asked = np.flatnonzero(np.isfinite(new).all(axis=1))
    if len(usable) and len(asked):
        distance = ((new[asked, None] - x[None, usable]) ** 2).sum(axis=2)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :N_NEIGHBOURS]
        found[asked] = y[usable[nearest]].mean(axis=1)
    return found
