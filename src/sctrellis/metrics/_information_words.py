"""What was found in a set of cells, in sentences."""

from typing import Any

import numpy as np
import pandas as pd

from sctrellis.metrics._component_audit import TOGETHER

RARE = 0.1
"""Share of the cells below which a regulator is rarely seen."""
_FLAT = 0.01
_LARGE = 0.1


def findings(found: dict[str, Any], n: int, q: float) -> list[str]:
    """Return what was found, a sentence each.

    Parameters
    ----------
    found
        Fields of :class:`Information`.
    n
        Number of cells.
    q
        False discovery rate of power and discoveries.
    """
    size = found["size"].iloc[0]
    words = [
        f"{n:,} cells are worth {size['n_eff']:.3g} independent ones; with shuffled genes they would be worth "
        f"{size['permuted']:.3g}."
    ]
    least = found["detectable"]
    r2 = least[(least["quantity"] == "r2") & (least["power"] == 0.8)]["value"].item()
    effects = found["curve"]["effect"].dropna()
    shown = f"{r2:.2f}" if r2 <= 1.5 * effects.max() else f"more than {effects.max():g}"
    needed = least[(least["quantity"] == "cells") & (least["power"] == 0.8)].set_index("effect")["value"]
    effect = 0.1 if 0.1 in needed.index else needed.index[0]
    cells = needed[effect]
    words.append(
        f"At q = {q:g} and a power of 0.8, regulators must explain {shown} of a target's variance to be found. For "
        f"{effect:g} it takes "
        + (f"about {_rounded(cells):,} cells." if cells <= 20 * n else f"more than {20 * n:,} cells.")
    )
    words += [_curve_words(line) for _, line in found["doubled"].iterrows() if line["measure"] == "r2"]
    audited = found["components"]
    audited = audited[(audited["component"] > 0) & (audited["covariate"] != TOGETHER)].dropna()
    if len(audited):
        worst = audited.loc[(audited["adjusted_r2"] * audited["share"]).idxmax()]
        words.append(
            f"Of component {int(worst['component'])}, which has {_percent(worst['share'])} of the variance, "
            f"{worst['covariate']!r} explains {_percent(max(worst['adjusted_r2'], 0))}."
        )
    removal = found["removal"]
    first, last = removal.iloc[0], removal[removal["removed"] != "covariates"].iloc[-1]
    if last["n_columns"]:
        words.append(
            f"A draw of knockoffs selects {first['knockoffs']:,.0f} pairs, and {last['knockoffs']:,.0f} given the "
            f"first {last['removed']}."
        )
    rare = int((found["detection"] < RARE).sum())
    p = len(found["detection"])
    words.append(f"{rare} of {p} regulators are seen in fewer than {_percent(RARE)} of the cells.")
    if np.isfinite(found["reliability"]).any():
        middle = float(np.nanmedian(found["reliability"]))
        words.append(
            f"Half of the regulators have a reliability below {middle:.2f}: their correlations are at most "
            f"{np.sqrt(middle):.2f} of what they would be without noise of counting."
        )
    else:
        words.append("Without counts, the noise of counting is not known.")
    groups = found["group"]
    if groups.any():
        words.append(
            f"{int((groups > 0).sum())} regulators form {int(groups.max())} groups of near copies: which of a group "
            "acts cannot be told."
        )
    if n <= p:
        words.append(
            f"There are {n:,} cells for {p:,} regulators: their correlations are shrunk towards zero by "
            f"{_percent(found['diagnostics']['shrinkage'])}, and least squares has no answer."
        )
    return words


def _curve_words(line: pd.Series) -> str:
    gain = line["doubled"] - line["now"]
    what = "Twice the cells" if line["axis"] == "cells" else "Twice the depth"
    effect = "the curve is flat" if gain < _FLAT else "the curve still rises"
    return (
        f"Regulators explain {_percent(max(line['now'], 0))} of the variance of targets in held-out cells. {what} "
        f"would give about {_percent(max(line['doubled'], 0))}: {effect}."
    )


def _rounded(value: float) -> int:
    """Return a number with two significant digits."""
    return int(float(f"{value:.2g}"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= _LARGE or share == 0 else f"{100 * share:.1f} %"
