"""What predicting and judging perturbations share: names, means of groups of cells, baselines that learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, slots
from sctrellis._core.rows import BLOCK, Rows
from sctrellis.metrics import perturbation_baselines
from sctrellis.metrics._perturbation_features import gene_loadings

SEPARATOR = "+"


def genes_of(label: str, known: Any) -> tuple[str, ...]:
    """Return the genes that a label names: itself where it is a gene, else its parts around a plus sign."""
    if label in known:
        return (label,)
    return tuple(part.strip() for part in label.split(SEPARATOR) if part.strip())


@dataclass(frozen=True)
class Screen:
    """Mean expression of groups of cells, control first apart.

    Attributes
    ----------
    labels, perturbations
        Name of each perturbation, and the genes that it perturbs.
    n_cells, mean, variance
        Of each perturbation; shapes (n,), (n, n_vars), (n, n_vars).
    n_control, control_mean, control_variance
        Of the control cells; a number and shapes (n_vars,).
    left_out
        ``perturbation`` and ``reason`` of what is not among them.
    """

    labels: list[str]
    perturbations: list[tuple[str, ...]]
    n_cells: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    n_control: int
    control_mean: np.ndarray
    control_variance: np.ndarray
    left_out: pd.DataFrame

    @property
    def changes(self) -> np.ndarray:
        """Observed change of each perturbation, shape (n, n_vars)."""
        return self.mean - self.control_mean

    @property
    def noise(self) -> np.ndarray:
        """Squared standard error of each change, shape (n, n_vars)."""
        return self.variance / self.n_cells[:, None] + self.control_variance / self.n_control

    def excluded(self, var_names: pd.Index) -> np.ndarray:
        """Return where a gene is itself perturbed, Boolean, shape (n, n_vars)."""
        return own_genes(self.perturbations, var_names)


def own_genes(perturbations: Sequence[Sequence[str]], var_names: pd.Index) -> np.ndarray:
    """Return where a gene is itself perturbed, Boolean, shape (n, n_vars)."""
    return np.array([var_names.isin(genes) for genes in perturbations])


def read_screen(ad: Any, groupby: str, control: str, *, layer: str | None, min_cells: int) -> Screen:
    """Return the groups of ``adata.obs[groupby]``; cells without a label belong to none."""
    checks.has_slot("groupby", groupby, ad.obs.columns, "adata.obs")
    values = ad.obs[groupby]
    codes, names = pd.factorize(values.astype(object).map(str, na_action="ignore"), sort=True)
    names = [str(name) for name in names]
    if control not in names:
        msg = f"`control`: no cell has {control!r} in `adata.obs[{groupby!r}]`. Found: {checks.some(names, 8)}."
        raise ValueError(msg)
    rows = slots.read_matrix(ad, layer)
    count, mean, variance = moments(rows, codes, len(names))
    at = names.index(control)
    if count[at] < checks.MIN_CELLS:
        msg = f"`control`: only {count[at]} cells are {control!r}: their mean needs at least {checks.MIN_CELLS}."
        raise ValueError(msg)
    others = np.array([i for i in range(len(names)) if i != at], dtype=int)
    enough = count[others] >= min_cells
    kept, dropped = others[enough], others[~enough]
    labels = [names[i] for i in kept]
    perturbations = [genes_of(label, ad.var_names) for label in labels]
    return Screen(
        labels=labels,
        perturbations=perturbations,
        n_cells=count[kept],
        mean=mean[kept],
        variance=variance[kept],
        n_control=int(count[at]),
        control_mean=mean[at],
        control_variance=variance[at],
        left_out=pd.DataFrame(
            {
                "perturbation": [names[i] for i in dropped],
                "reason": [f"{count[i]} cells, fewer than {min_cells}" for i in dropped],
            },
            dtype=object,
        ),
    )


def moments(rows: Rows, codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and variance of every gene in every group, in one pass; code -1 is no group."""
    codes = np.asarray(codes)
    count = np.bincount(codes[codes >= 0], minlength=n_groups)
    total, squares = np.zeros((2, n_groups, rows.shape[1]))
    centre = rows.summary.mean
    for i, block in enumerate(rows.blocks()):
        code = codes[i * BLOCK : i * BLOCK + len(block)]
        cell = np.flatnonzero(code >= 0)
        member = sparse.csr_matrix((np.ones(len(cell)), (code[cell], cell)), shape=(n_groups, len(block)))
        # Sums about the overall mean do not cancel.
        shifted = block.astype(np.float64) - centre
        total += member @ shifted
        squares += member @ shifted**2
    size = np.maximum(count, 1)[:, None]
    mean = total / size
    return count, mean + centre, np.maximum(squares / size - mean**2, 0.0)


def features_of(ad: Any, embedding: str | None, cells: np.ndarray, *, layer: str | None, seed: int) -> dict[str, Any]:
    """Return the vector of each gene for baselines that learn: an embedding, or loadings over control cells."""
    if embedding is not None:
        vectors = slots.read_embedding(ad, embedding)
    else:
        vectors = gene_loadings(slots.read_matrix(ad, layer), np.flatnonzero(cells), seed=seed)
    return dict(zip(map(str, ad.var_names), vectors.astype(np.float64), strict=True))


def learnt(
    screen: Screen,
    var_names: pd.Index,
    wanted: Sequence[Sequence[str]],
    features: dict[str, Any],
    seed: int,
) -> dict[str, np.ndarray]:
    """Return what the baselines predict for ``wanted``, each by fits that left it out."""
    return perturbation_baselines(
        screen.changes,
        screen.perturbations,
        wanted,
        excluded=screen.excluded(var_names),
        features=features,
        seed=seed,
    )
