"""Priors of a network: what embeddings and known edges say about a coefficient before the cells do."""

from dataclasses import dataclass

import numpy as np

_LOGIT_KNOWN = float(np.log(0.95 / 0.05))
_STRENGTHS = np.logspace(-3, 3, 13)


def known_logits(labels: np.ndarray) -> np.ndarray:
    """Return prior log-odds: 1 is a known edge (0.95), -1 a known non-edge (0.05), 0 unknown (0.5)."""
    return _LOGIT_KNOWN * np.sign(labels)


def known_factor(logits: np.ndarray, sigma: float) -> np.ndarray:
    """Return the factor of each coefficient: the expected edge probability over that of an unknown pair.

    Parameters
    ----------
    logits
        Log-odds ``l``.
    sigma
        Standard deviation of the log-odds.

    Returns
    -------
    np.ndarray
        ``2 E[sigmoid(l + sigma e)]``, with the probit approximation; in (0, 2), and 1 where the log-odds are 0.
        The wider the prior, the closer to 1: labels that are not believed change nothing.
    """
    return 2.0 / (1.0 + np.exp(-logits / np.sqrt(1 + np.pi * sigma**2 / 8)))


@dataclass(frozen=True)
class Features:
    """Reduced gene embeddings.

    Attributes
    ----------
    values : (n_genes, d)
        Centred, uncorrelated columns of variance 1 over the genes that have an embedding; 0 elsewhere.
    present : (n_genes,), bool
        Genes with an embedding.
    """

    values: np.ndarray
    present: np.ndarray


def reduce_embedding(embedding: np.ndarray, n_components: int = 32) -> Features:
    """Centre, rotate and scale gene embeddings to their leading principal components.

    Parameters
    ----------
    embedding : (n_genes, d)
        Embeddings; a row with NaN is a gene without one.
    n_components
        Components kept at most.

    Returns
    -------
    Features
        The components, and which genes have them.

    Examples
    --------
    >>> import numpy as np, sctrellis as tr
    >>> vectors = np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, np.nan]])
    >>> tr.models.reduce_embedding(vectors).values.shape
    (3, 1)
    """
    present = np.isfinite(embedding).all(axis=1)
    centred = embedding[present].astype(np.float64)
    if len(centred):
        centred -= centred.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    kept = size[:n_components] > 1e-6 * max(float(size[0]), 1e-30) if len(size) else np.zeros(0, bool)
    values = np.zeros((len(embedding), int(kept.sum())))
    values[present] = left[:, : len(kept)][:, kept] * np.sqrt(present.sum())
    return Features(values, present)


@dataclass(frozen=True)
class SidePrediction:
    """How well embeddings predict one side of the network.

    Attributes
    ----------
    effect : (n,)
        Cross-fitted prediction of each gene's mean coefficient, less the overall mean; 0 where nothing is predicted.
    explained
        Share of the variance of mean coefficients that is predicted for genes left out.
    strength
        Ridge strength chosen, relative to the mean eigenvalue; NaN where the embedding is not used.
    """

    effect: np.ndarray
    explained: float
    strength: float


def predict_effect(features: np.ndarray, effect: np.ndarray) -> SidePrediction:
    """Predict genes' mean coefficients from their embeddings, each gene by a fit that has not seen it.

    Ridge regression on the features, in closed form for every gene left out; the strength is the one with the smallest
    leave-one-out error. The embedding is used only if it beats the plain mean by two standard errors: an embedding
    that knows nothing about the network then changes nothing.

    Parameters
    ----------
    features : (n, d)
        Reduced embeddings.
    effect : (n,)
        Mean coefficient of each gene.

    Returns
    -------
    SidePrediction
        Predictions and their worth.
    """
    n = len(effect)
    nothing = SidePrediction(np.zeros(n), 0.0, float("nan"))
    if n < 5 or features.shape[1] == 0:
        return nothing
    centred = effect - effect.mean()
    without = (centred * n / (n - 1)) ** 2
    if without.mean() == 0:
        return nothing
    x = features - features.mean(axis=0)
    left, size, _ = np.linalg.svd(x, full_matrices=False)
    eigenvalues = size**2
    scale = eigenvalues.sum() / min(n, x.shape[1])
    if scale == 0:  # all genes have the same features
        return nothing
    projected = left.T @ centred
    best: tuple[np.ndarray, np.ndarray, float] | None = None
    for strength in _STRENGTHS:
        shrinkage = eigenvalues / (eigenvalues + strength * scale)
        leverage = (left**2) @ shrinkage + 1 / n
        left_out = (centred - left @ (shrinkage * projected)) / np.maximum(1 - leverage, 1e-12)
        if best is None or (left_out**2).mean() < (best[0] ** 2).mean():
            best = left_out, centred - left_out, strength
    assert best is not None
    left_out, prediction, strength = best
    gain = without - left_out**2
    explained = float(gain.mean() / without.mean())
    if gain.mean() < 2 * gain.std() / np.sqrt(n):
        return SidePrediction(np.zeros(n), explained, float("nan"))
    return SidePrediction(prediction, explained, float(strength))
