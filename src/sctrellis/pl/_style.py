"""What the figures share: a frame, colours that differ in grey too, and a legend outside the data."""

from typing import TYPE_CHECKING, Any

from sctrellis._core import audited

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours that stay visible on white, from dark to light; the dashes tell them apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)), (0, (8, 2, 1, 2, 1, 2)))
GREYS = ("0.25", "0.45", "0.60")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "0.15"


def axes(ax: "Axes | None", figsize: tuple[float, float]) -> "Axes":
    """Return ``ax``, or the axes of a new figure."""
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    return ax


def panels(ax: Any, n: int, size: tuple[float, float]) -> "list[Axes]":
    """Return the axes of ``n`` panels: those given, or those of a new figure, each of this size, side by side."""
    if ax is None:
        from matplotlib import pyplot as plt

        figure, made = plt.subplots(1, n, figsize=(n * size[0], size[1]), layout="constrained", squeeze=False)
        engine: Any = figure.get_layout_engine()
        engine.set(wspace=0.08)
        return list(made[0])
    given = [ax] if hasattr(ax, "plot") else list(ax)
    if len(given) != n:
        msg = f"Expected `ax` to hold {n} axes, one for each panel, found {len(given)}."
        raise ValueError(msg)
    return given


def tidy(ax: "Axes") -> None:
    """Take away the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: "Axes", handles: Any = None, **kwargs: Any) -> None:
    """Put the legend to the right of the axes."""
    options = {
        "loc": "upper left",
        "bbox_to_anchor": (1.02, 1.0),
        "borderaxespad": 0.0,
        "frameon": False,
        "handlelength": 3.0,
    }
    if handles is not None:
        options["handles"] = handles
    ax.legend(**{**options, **kwargs})


def banner(ax: "Axes", text: str) -> None:
    """Write above the axes, to the right, that what they show was not audited; nothing where it was."""
    if text.startswith(audited.UNAUDITED):
        place: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, 3), "textcoords": "offset points"}
        ax.annotate(text, (1, 1), ha="right", va="bottom", fontsize="x-small", color=COLOURS[1], **place)
