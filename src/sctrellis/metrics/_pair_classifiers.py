"""Scores of pairs from labels of other pairs, and from fixed features of genes: no expression, no torch."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, special

from sctrellis._core import checks
from sctrellis.metrics._label_scores import one_hot_effects


@dataclass(frozen=True)
class PairScores:
    """A fitted score ``sigmoid(intercept + a_i + b_k + u_i . v_k)``; what a gene was not seen in is exactly 0.

    Parameters
    ----------
    intercept
        Log-odds of a pair of unseen genes.
    regulator, target : (n_genes,)
        What each gene adds as a regulator, and as a target.
    regulator_factors, target_factors : (n_genes, d)
        Vectors whose product is added; None adds nothing.
    """

    intercept: float
    regulator: np.ndarray
    target: np.ndarray
    regulator_factors: np.ndarray | None = None
    target_factors: np.ndarray | None = None

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """Return the score of regulators ``rows`` with every gene, float32, shape (n_rows, n_genes)."""
        logits = self.intercept + self.regulator[rows][:, None] + self.target
        if self.regulator_factors is not None and self.target_factors is not None:
            logits += self.regulator_factors[rows] @ self.target_factors.T
        return special.expit(logits).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that rebuild the score."""
        found = {"intercept": np.array([self.intercept]), "regulator": self.regulator, "target": self.target}
        if self.regulator_factors is not None and self.target_factors is not None:
            found |= {"regulator_factors": self.regulator_factors, "target_factors": self.target_factors}
        return found


def one_hot(row: np.ndarray, column: np.ndarray, label: np.ndarray, n_genes: int) -> PairScores:
    """Fit a logistic regression on who the two genes are, with scikit-learn's ``C=1``.

    Parameters
    ----------
    row, column
        Regulator and target of every labelled pair.
    label : bool
        Whether it is a known edge; both kinds are needed.
    n_genes
        Number of genes.

    Returns
    -------
    PairScores
        A gene without pairs in a role adds 0 in it.
    """
    genes = np.arange(n_genes)
    return PairScores(*one_hot_effects(row, column, label, genes, genes))


def degree(row: np.ndarray, column: np.ndarray, label: np.ndarray, n_genes: int) -> PairScores:
    """Add up the log-odds of each gene's share of edges, in excess of the share over all pairs.

    Parameters
    ----------
    row, column, label, n_genes
        As in :func:`one_hot`.

    Returns
    -------
    PairScores
        Shares are smoothed by one further pair that is an edge with the overall share; a gene without pairs adds 0.
    """
    base = label.mean()

    def excess(ends: np.ndarray) -> np.ndarray:
        edges = np.bincount(ends, weights=label, minlength=n_genes)
        pairs = np.bincount(ends, minlength=n_genes)
        found = special.logit((edges + base) / (pairs + 1)) - special.logit(base)
        return np.where(pairs > 0, found, 0.0)

    return PairScores(float(special.logit(base)), excess(row), excess(column))


def feature_regression(
    row: np.ndarray,
    column: np.ndarray,
    label: np.ndarray,
    features: np.ndarray,
    missing: np.ndarray,
) -> PairScores:
    """Fit a logistic regression on features of both genes, side by side.

    Parameters
    ----------
    row, column, label
        As in :func:`one_hot`.
    features : (n_genes, d)
        Fixed features of the genes; rows of genes without any are 0.
    missing : (n_genes,), bool
        Genes without features. They share one coefficient in each role.

    Returns
    -------
    PairScores
        What the features say of each gene in each role; the product of the two genes is not in it.
    """
    from sklearn.linear_model import LogisticRegression

    table = np.column_stack([features, missing]) if missing.any() else features
    checks.dense_size(
        (len(row), 2 * table.shape[1]), "The table of pairs by features", "Reduce the embedding, or split fewer pairs.",
        itemsize=8,
    )  # fmt: skip
    # A tight tolerance: the order of genes must not show in the scores.
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(np.hstack([table[row], table[column]]), label)
    coefficients, width = model.coef_[0], table.shape[1]
    return PairScores(float(model.intercept_[0]), table @ coefficients[:width], table @ coefficients[width:])


def complete_matrix(
    row: np.ndarray,
    column: np.ndarray,
    label: np.ndarray,
    n_genes: int,
    *,
    n_factors: int,
    seed: int,
    penalty: float = 1.0,
    factor_penalty: float = 2.0,
    max_iter: int = 500,
) -> PairScores:
    """Fit a logistic factorisation of the labelled entries of the matrix of regulators by targets.

    Parameters
    ----------
    row, column, label, n_genes
        As in :func:`one_hot`.
    n_factors
        Length of the vectors of the genes.
    seed
        Seed of the small random vectors that the fit starts from.
    penalty, factor_penalty
        Half the weights of the penalty on squared single effects and on squared vectors. The intercept is free.
    max_iter
        Steps of L-BFGS at most.

    Returns
    -------
    PairScores
        A gene without pairs in a role has effect and vector 0 in it.
    """
    sources, i = np.unique(row, return_inverse=True)
    targets, k = np.unique(column, return_inverse=True)
    order = np.lexsort((k, i))
    i, k, y = i[order], k[order], label[order].astype(np.float64)
    n, m, r = len(sources), len(targets), n_factors
    pointer = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))])
    cuts = np.cumsum([1, n, m, n * r])

    def parts(flat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        intercept, a, b, u, v = np.split(flat, cuts)
        return float(intercept[0]), a, b, u.reshape(n, r), v.reshape(m, r)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        intercept, a, b, u, v = parts(flat)
        logits = intercept + a[i] + b[k] + np.einsum("pr,pr->p", u[i], v[k])
        value = np.logaddexp(0, logits).sum() - y @ logits
        value += 0.5 * penalty * (a @ a + b @ b) + 0.5 * factor_penalty * (np.vdot(u, u) + np.vdot(v, v))
        rest = special.expit(logits) - y
        residual = sparse.csr_matrix((rest, k, pointer), shape=(n, m))
        slope = [
            [rest.sum()],
            np.bincount(i, weights=rest, minlength=n) + penalty * a,
            np.bincount(k, weights=rest, minlength=m) + penalty * b,
            (residual @ v + factor_penalty * u).ravel(),
            (residual.T @ u + factor_penalty * v).ravel(),
        ]
        return float(value), np.concatenate(slope)

    start = np.zeros(cuts[-1] + m * r)
    start[0] = special.logit(y.mean())
    start[cuts[2] :] = 0.1 * np.random.default_rng(seed).standard_normal((n + m) * r)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": max_iter})
    intercept, a, b, u, v = parts(found.x)

    def spread(values: np.ndarray, genes: np.ndarray) -> np.ndarray:
        whole = np.zeros((n_genes, *values.shape[1:]))
        whole[genes] = values
        return whole

    return PairScores(intercept, spread(a, sources), spread(b, targets), spread(u, sources), spread(v, targets))
