from typing import Any

import numpy as np
import pandas as pd

from sctrellis.metrics import _ranking

MACRO_METRICS = ("auroc", "auprc", "auprc_ratio")


def per_group(scores: Any, labels: Any, groups: Any, *, min_count: int = 5) -> pd.DataFrame:
    """AUROC and average precision within each regulator, or within each target.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    groups : (n,)
        The regulator (or the target) of each pair.
    min_count
        Positive, and negative, pairs that a group must have.

    Returns
    -------
    DataFrame
        One row per group, in sorted order, with ``n_pairs``, ``n_positive``, ``auroc``, ``auprc`` (average precision)
        and ``auprc_ratio``; NaN where the group has too few pairs of either kind.

    Raises
    ------
    ValueError
        On NaN scores and on arrays of unequal length.

    Notes
    -----
    All groups at once, from one sort: O(n log n).

    Examples
    --------
    >>> from sctrellis import metrics
    >>> metrics.per_group([3, 2, 1, 3, 2, 1], [1, 0, 0, 0, 0, 1], list("aaabbb"), min_count=1)["auroc"].tolist()
    [1.0, 0.0]
    """
    scores = _ranking.as_scores(scores)
    labels = _ranking.as_labels(labels, len(scores))
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if code.shape != scores.shape:
        msg = f"Expected `groups` to have shape ({len(scores)},) as `scores`, found {code.shape}."
        raise ValueError(msg)
    order = np.lexsort((-scores, code))
    value, group, found = scores[order], code[order], labels[order]
    ends = np.append(np.flatnonzero((value[1:] != value[:-1]) | (group[1:] != group[:-1])), len(value) - 1)
    group = group[ends]

    n_pairs, n_positive = np.bincount(code), np.bincount(code, weights=labels)
    first = np.concatenate([[0], np.cumsum(n_pairs)[:-1]])
    found_before = np.concatenate([[0], np.cumsum(n_positive)[:-1]])
    n = ends + 1.0 - first[group]
    tp = np.cumsum(found)[ends] - found_before[group]
    is_first = np.append(True, group[1:] != group[:-1])

    def step(total: np.ndarray) -> np.ndarray:
        return np.where(is_first, total, np.diff(total, prepend=0.0))

    gain, n_gain = step(tp), step(n)
    under_roc = np.bincount(group, weights=(n_gain - gain) * (tp - gain / 2), minlength=len(names))
    under_pr = np.bincount(group, weights=gain * tp / n, minlength=len(names))

    kept = (n_positive >= max(min_count, 1)) & (n_pairs - n_positive >= max(min_count, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.where(kept, under_roc / (n_positive * (n_pairs - n_positive)), np.nan)
        precision = np.where(kept, under_pr / n_positive, np.nan)
    return pd.DataFrame(
        {
            "n_pairs": n_pairs,
            "n_positive": n_positive.astype(np.int64),
            "auroc": area,
            "auprc": precision,
            "auprc_ratio": precision / np.where(kept, n_positive / n_pairs, np.nan),
        },
        index=pd.Index(names, name="group"),
    )


def macro(scores: Any, labels: Any, groups: Any, *, min_count: int = 5) -> pd.DataFrame:
    """Mean over regulators (or targets) of AUROC and average precision within each.

    Parameters
    ----------
    scores : (n,)
        Higher is more likely an edge; ``-inf`` marks pairs without a score, ranked last together.
    labels : (n,)
        Boolean, or 0 and 1.
    groups : (n,)
        The regulator (or the target) of each pair.
    min_count
        Positive, and negative, pairs that a group must have to count.

    Returns
    -------
    DataFrame
        Rows ``auroc``, ``auprc`` and ``auprc_ratio``; columns ``mean``, ``median``, ``se`` (standard error of the mean
        over groups), ``n_groups`` and ``coverage`` (share of the groups that counted).

    Raises
    ------
    ValueError
        On NaN scores and on arrays of unequal length.

    Notes
    -----
    Within one regulator it does not matter how many targets that regulator has, so a method cannot win by knowing
    which regulators are well studied; averaging over targets does the same for popular targets.
    Average precision of random scores exceeds the share of positives where these are few, so chance is somewhat above
    1 for ``auprc_ratio``: compare with random scores on the same groups.

    Examples
    --------
    >>> from sctrellis import metrics
    >>> scores, labels, regulators = [3, 2, 1, 3, 2, 1], [1, 0, 0, 0, 0, 1], list("aaabbb")
    >>> metrics.macro(scores, labels, regulators, min_count=1).loc["auroc", ["mean", "se"]].tolist()
    [0.5, 0.5]
    """
    table = per_group(scores, labels, groups, min_count=min_count)
    values = table[list(MACRO_METRICS)]
    n_groups = int(values["auroc"].notna().sum())
    return pd.DataFrame(
        {
            "mean": values.mean(),
            "median": values.median(),
            "se": values.std(ddof=1) / np.sqrt(max(n_groups, 1)),
            "n_groups": n_groups,
            "coverage": n_groups / len(table),
        }
    )
