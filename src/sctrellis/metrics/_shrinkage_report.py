"""What self weights say: correlations beside those of controls, claims with verdicts, and curves to draw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sctrellis.metrics._against_controls import Against, Statistic, against_controls, spearman, spread, verdict
from sctrellis.metrics._binned_medians import binned_medians

MODEL = "model"
INITIALISED = "random initialisation"
REWIRED = "random neighbours"
_COLUMNS = {INITIALISED: "initialised", REWIRED: "rewired"}
_CURVES = ("in_degree", "mean_expression")
LICENSED_SHARE = 0.5
"""Share of the genes whose responses must point the same way before the model as a whole is called shrinkage-like."""


class _Claim(NamedTuple):
    quantity: str
    words: str
    statistic: Statistic
    sign: Literal[1, -1]


# What the note on RegNet reads off its figures; the third axis of each is the self weight.
_CLAIMS = (
    _Claim("in_degree", "self weight rises with in-degree", spearman, 1),
    _Claim("spread", "self weights spread over the whole range", spread, 1),
    _Claim("mean_expression", "self weight falls with mean expression", spearman, -1),
    _Claim("is_regulator", "regulators have smaller self weights than other genes", spearman, -1),
)


@dataclass(frozen=True, kw_only=True)
class ShrinkageReport:
    """Tables of :func:`shrinkage_report`."""

    correlations: pd.DataFrame
    claims: pd.DataFrame
    curves: pd.DataFrame
    distribution: pd.DataFrame
    reading: dict[str, Any]


def shrinkage_report(
    weight: np.ndarray,
    alignment: np.ndarray,
    quantities: Mapping[str, np.ndarray],
    controls: Mapping[str, np.ndarray],
    control_alignments: Mapping[str, np.ndarray],
    *,
    min_alignment: float,
    n_boot: int,
    seed: int,
) -> ShrinkageReport:
    """Relate self weights to quantities of the genes, beside controls.

    Parameters
    ----------
    weight, alignment : (n_genes,)
        Of the fitted model; NaN where undefined.
    quantities
        Name to values of shape (n_genes,): ``in_degree`` and ``mean_expression``, and what else there is.
    controls, control_alignments
        Kind of control to weights and alignments, each (n_controls, n_genes).
    min_alignment
        Alignment from which on a gene counts as shrinkage-like.
    n_boot, seed
        Bootstrap replicates and their seed.
    """
    found = {
        name: against_controls(weight, values, controls, n_boot=n_boot, seed=seed)
        for name, values in quantities.items()
    }
    correlations = [{"quantity": name, **_line(against)} for name, against in found.items()]
    claims = []
    for claim in _CLAIMS:
        if claim.statistic is spread:
            against = against_controls(weight, weight, controls, statistic=spread, n_boot=n_boot, seed=seed)
        elif claim.quantity in found:
            against = found[claim.quantity]
        else:
            continue
        code, reason = verdict(against, claim.sign)
        statistic = "5 % to 95 % range" if claim.statistic is spread else "Spearman"
        claims.append(
            {"claim": claim.words, "quantity": claim.quantity, "statistic": statistic, "sign": claim.sign}
            | _line(against)
            | {"verdict": code, "reason": reason}
        )
    sources = {MODEL: weight[None], **controls}
    curves = [
        binned_medians(quantities[name], values, n_boot=n_boot, seed=seed).assign(quantity=name, source=source)
        for name in _CURVES
        for source, values in sources.items()
    ]
    angles = {MODEL: alignment[None], **control_alignments}
    return ShrinkageReport(
        correlations=pd.DataFrame(correlations),
        claims=pd.DataFrame(claims),
        curves=pd.concat(curves, ignore_index=True),
        distribution=pd.DataFrame(
            [_distribution(source, sources[source], angles[source], min_alignment) for source in sources]
        ),
        reading=_reading(alignment, min_alignment),
    )


def _line(found: Against) -> dict[str, Any]:
    line: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high, "n_genes": found.n_genes}
    for name, difference in found.differences.items():
        column = _COLUMNS[name]
        line |= {
            column: difference.control,
            f"over_{column}": difference.value,
            f"over_{column}_low": difference.low,
            f"over_{column}_high": difference.high,
        }
    return line


def _distribution(source: str, weights: np.ndarray, angles: np.ndarray, min_alignment: float) -> dict[str, Any]:
    weights, angles = weights[np.isfinite(weights)], angles[np.isfinite(angles)]
    if not len(weights) or not len(angles):
        names = ("q05", "median", "q95", "above_0.8", "below_0.05", "median_alignment", "aligned_share")
        return {"source": source, **dict.fromkeys(names, np.nan)}
    low, median, high = np.quantile(weights, [0.05, 0.5, 0.95])
    return {
        "source": source,
        "q05": low,
        "median": median,
        "q95": high,
        "above_0.8": (weights > 0.8).mean(),
        "below_0.05": (weights < 0.05).mean(),
        "median_alignment": np.median(angles),
        "aligned_share": (angles >= min_alignment).mean(),
    }


def _reading(alignment: np.ndarray, min_alignment: float) -> dict[str, Any]:
    defined = alignment[np.isfinite(alignment)]
    n_aligned = int((defined >= min_alignment).sum())
    share = n_aligned / len(defined) if len(defined) else float("nan")
    licensed = bool(share >= LICENSED_SHARE)
    name = "shrinkage-like" if licensed else "self share of sensitivity"
    words = (
        f"{name}: own and neighbours' responses point the same way (alignment at least {min_alignment:g}) in "
        f"{n_aligned:,} of {len(defined):,} genes"
    )
    return {"licensed": licensed, "aligned_share": share, "n_genes": len(defined), "name": name, "words": words}
