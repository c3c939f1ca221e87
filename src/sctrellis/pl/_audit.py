from collections.abc import Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from sctrellis import get
from sctrellis._core import audited, slots
from sctrellis.pl import _style
from sctrellis.pl._calibration import calibration
from sctrellis.pl._information import information
from sctrellis.pl._null import null
from sctrellis.pl._scores import scores

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_ASKED = {
    "baseline": "Is it better than the best baseline?",
    "null": "Is it more than who is popular?",
    "calibration": "Do its probabilities say more than a constant?",
    "information": "Can these cells carry it?",
}
_ANSWER = {"yes": "yes", "no": "no", "": "not known"}
_WIDTH = 62
_TITLE = {"loc": "left", "fontsize": "medium", "weight": "bold", "color": _style.INK}


def audit(
    adata: "AnnData | MuData",
    key: str,
    *,
    mod: str | None = None,
) -> "dict[str, Axes]":
    """Draw the audit of a network on one page: four questions, what was found, and the answers.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        The network that :func:`sctrellis.tl.audit` has looked at.
    mod
        Modality to use where ``adata`` is a MuData.

    Returns
    -------
    dict of matplotlib.axes.Axes, by panel; ``axes["baseline"].get_figure(root=True)`` is the page:

    ``"baseline"``
        Average precision beside that of the baselines; see :func:`sctrellis.pl.scores`.
    ``"null"``
        What random networks of the same degrees get; see :func:`sctrellis.pl.null`.
    ``"calibration"``
        Shares of known edges by claimed probability; see :func:`sctrellis.pl.calibration`.
    ``"information"``
        Power by the number of cells; see :func:`sctrellis.pl.information`.

    Below each panel stands what was found, or why there is nothing to draw.

    Raises
    ------
    KeyError
        If there is no such network.
    ValueError
        If it was not audited, or was changed since.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(100, 60, 15, density=0.2)
    >>> tr.tl.baseline(adata, "pearson")
    >>> table = tr.tl.audit(adata, "pearson", network="truth", n_boot=50, n_perm=99, budget=0)
    >>> sorted(tr.pl.audit(adata, "pearson"))
    ['baseline', 'calibration', 'information', 'null']
    """
    from matplotlib import pyplot as plt

    ad = slots.source(adata, mod)
    slots.read_network(ad, key, argument="key")
    if not audited.states(ad, key):
        msg = f"{key!r} was not audited, or has other scores since. Run `sctrellis.tl.audit(adata, {key!r})` first."
        raise ValueError(msg)
    entry = get.record(ad, key)["audit"]
    rows = {str(row["part"]): row for row in entry["table"].to_dict("records")}
    words = {part: _found(rows.get(part)) for part in _ASKED}
    heights = [3.3 + 0.17 * max(len(words[part]) for part in pair) for pair in (_FIRST, _SECOND)]
    figure = plt.figure(figsize=(12.5, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(_headline(key, rows), x=0.01, ha="left", weight="bold", color=_style.INK)
    axes: dict[str, Axes] = {}
    halves = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    for half, names in zip(halves, (_FIRST, _SECOND), strict=True):
        for panel, part in zip(half.subfigures(1, 2, squeeze=False)[0], names, strict=True):
            drawn, told = panel.subplots(2, 1, height_ratios=[3.3, 0.17 * len(words[part]) + 0.1])
            axes[part] = drawn
            if rows.get(part, {}).get("state") == audited.DONE:
                _draw(ad, key, part, entry["records"][part], drawn)
            else:
                drawn.set_axis_off()
            drawn.set_title(f"{_ASKED[part]} {_answer(rows.get(part))}", **_TITLE)
            told.set_axis_off()
            told.text(0, 1, "\n".join(words[part]), transform=told.transAxes, va="top", color=_style.INK)
    return axes


_FIRST, _SECOND = ("baseline", "null"), ("calibration", "information")


def _draw(ad: Any, key: str, part: str, name: str, ax: "Axes") -> None:
    if part == "baseline":
        scores(ad, key=name, metric="auprc", ax=ax)
    elif part == "null":
        null(ad, name, "auprc", ax=ax)
    elif part == "calibration":
        calibration(ad, f"{key}_audit", ax=ax)
    else:
        information(ad, key=name, axes={"power": ax})


def _headline(key: str, rows: Mapping[str, Any]) -> str:
    passed = sum(row["passed"] == "yes" for row in rows.values())
    asked = sum(row["passed"] in ("yes", "no") for row in rows.values())
    return f"{key}: {passed} of {asked} questions answered with yes" if asked else f"{key}: no question is answered"


def _answer(row: Mapping[str, Any] | None) -> str:
    if row is None or row["state"] != audited.DONE:
        return "– not asked"
    return f"– {_ANSWER[str(row['passed'])]}"


def _found(row: Mapping[str, Any] | None) -> list[str]:
    text = "not run" if row is None else str(row["found"] or row["state"])
    return wrap(text[:1].upper() + text[1:], _WIDTH)
