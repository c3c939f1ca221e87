"""What a surrogate is worth on the test cells: per gene, per gene and group, and per group."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sctrellis.metrics import _translation as quality
from sctrellis.tl._surrogate import Paired


@dataclass(frozen=True)
class Report:
    """Tables of quality; see the Returns of ``tl.translate``."""

    genes: pd.DataFrame
    by_group: pd.DataFrame
    groups: pd.DataFrame


def permuted_partners(paired: Paired, n: int, seed: int) -> np.ndarray:
    """Return, for each of ``n`` permutations, a cell of the same group and part for each cell, shape (n, n_cells)."""
    part = np.full(len(paired.groups), -1)
    for code, cells in enumerate(paired.split.values()):
        part[cells] = code
    stratum = paired.groups * 4 + part
    order = np.argsort(stratum, kind="stable")
    rng = np.random.default_rng([seed, 1])
    partners = np.empty((n, len(order)), dtype=np.int64)
    for row in partners:
        row[order] = np.lexsort((rng.random(len(order)), stratum))
    return partners


def report(
    paired: Paired,
    names: pd.Index,
    predicted: np.ndarray,
    columns: np.ndarray,
    *,
    theta: float | np.ndarray,
    null: np.ndarray,
    null_rows: np.ndarray,
) -> Report:
    """Compare predictions with what was observed in the test cells.

    Parameters
    ----------
    paired
        The data.
    names
        Names of the genes that were predicted.
    predicted : (n_test, n_genes)
        Predicted log expression of a cell of mean size.
    columns : (n_genes,)
        Positions of these genes in the RNA modality.
    theta
        Inverse dispersion of the counts.
    null : (n_null, n_test, n_genes)
        Predictions of each refit to permuted pairs, or those of the surrogate itself.
    null_rows : (n_permutations, n_test)
        Cells whose expression they are compared with, in turn; the first ones belong to the refits.
    """
    test, train = paired.split["test"], paired.split["train"]
    groups, n_groups = paired.groups[test], len(paired.group_names)
    size = np.exp(paired.log_size.astype(np.float64))[:, None]

    def observed_in(cells: np.ndarray) -> np.ndarray:
        values = paired.expression[cells][:, columns].toarray().astype(np.float64)
        return np.log1p(values / size[cells]) if paired.sized else values

    observed = observed_in(test)
    r_within = quality.correlation(observed, predicted, groups)
    r_group = quality.correlation_by_group(observed, predicted, groups, n_groups)
    null_r, null_r_group = np.full((len(null_rows), len(names)), np.nan), []
    for i, rows in enumerate(null_rows):
        shuffled, guess = observed_in(rows), null[i % len(null)]
        null_r[i] = quality.correlation(shuffled, guess, groups)
        null_r_group.append(quality.correlation_by_group(shuffled, guess, groups, n_groups))
    bar = _upper(null_r)
    bar_group = np.array([_upper(np.array(null_r_group)[:, k] if null_r_group else null_r) for k in range(n_groups)])

    y = paired.expression[test][:, columns].toarray().astype(np.float64)
    fitted = paired.expression[train][:, columns].toarray().astype(np.float64)
    if paired.sized:
        exposure = quality.group_means(size[train], paired.groups[train], n_groups)
        rate = quality.group_means(fitted, paired.groups[train], n_groups) / exposure
        # The training cells' own mean has no logarithm where a group has no count: half a count stands in.
        n_train = np.bincount(paired.groups[train], minlength=n_groups)[:, None]
        base = np.log(np.maximum(rate, 0.5 / (n_train * exposure)))[groups]
        log_size = paired.log_size[test].astype(np.float64)[:, None]
        loss, base_loss = (quality.nb_deviance(y, f + log_size, theta) for f in (predicted, base))
        normalised, expected = y / size[test], np.exp(predicted)
    else:
        base = quality.group_means(fitted, paired.groups[train], n_groups)[groups]
        loss, base_loss = (((y - f) ** 2).sum(axis=0) for f in (predicted, base))
        normalised, expected = y, predicted
    means = quality.group_means(normalised, groups, n_groups)
    expected_means = quality.group_means(expected, groups, n_groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviance = np.where(base_loss > 0, 1 - loss / base_loss, np.nan)
    table = pd.DataFrame(
        {
            "mean": normalised.mean(axis=0),
            "r": quality.correlation(observed, predicted),
            "r_within": r_within,
            "null_q95": np.full(len(names), bar),
            "null_p": _p_value(r_within, null_r),
            "learned": r_within > bar,
            "deviance": deviance,
            "calibration_slope": quality.slope(normalised, expected, groups),
        },
        index=pd.Index(names.astype(str), name="gene"),
    )
    gene, group = np.meshgrid(np.arange(len(names)), np.arange(n_groups), indexing="ij")
    by_group = pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(gene.ravel(), names.astype(str)),
            "group": pd.Categorical.from_codes(group.ravel(), pd.Index(paired.group_names)),
            "observed": means.T.ravel(),
            "predicted": expected_means.T.ravel(),
            "r": r_group.T.ravel(),
            "null_q95": np.tile(bar_group, len(names)),
            "learned": (r_group > bar_group[:, None]).T.ravel(),
        }
    )
    per_group = pd.DataFrame(
        {
            "n_train": np.bincount(paired.groups[train], minlength=n_groups),
            "n_test": np.bincount(groups, minlength=n_groups),
            "r_of_means": _r_of_means(*(np.log1p(m) if paired.sized else m for m in (means, expected_means))),
        },
        index=pd.Index(paired.group_names, name="group"),
    )
    return Report(table, by_group, per_group)


def _upper(values: np.ndarray) -> float:
    """Return the 95 % quantile of a null, genes together; a correlation that is not defined counts as 0."""
    return float(np.quantile(np.nan_to_num(values), 0.95)) if values.size else np.nan


def _p_value(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the share of the null, one more counted, that reaches each value."""
    if not null.size:
        return np.full(len(values), np.nan)
    ordered = np.sort(np.nan_to_num(null).ravel())
    reached = len(ordered) - np.searchsorted(ordered, np.nan_to_num(values), side="left")
    return (1 + reached) / (1 + len(ordered))


def _r_of_means(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return, for each group, Pearson's r over genes of observed and predicted means; NaN for fewer than 3 genes."""
    if observed.shape[1] < 3:
        return np.full(len(observed), np.nan)
    return quality.correlation(observed.T, expected.T)
