"""Draw docs/guide/redundancy.png: planted gates, no model and no learning. Run it from anywhere; it takes seconds."""

from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from sctrellis.explain import epistasis
from sctrellis.pl import _style

OUT = Path(__file__).parents[1] / "guide" / "redundancy.png"
P_OPEN = 0.75
N_CELLS = 20_000
NAMES = ["R1", "R2", "R3", "A1", "A2", "A3"]
REDUNDANT, ADDITIVE = [0, 1, 2], [3, 4, 5]


def open_cells(n_peaks: int, p_open: float, seed: int = 0) -> np.ndarray:
    """Return which peaks are open in which cells, (n_cells, n_peaks)."""
    return np.random.default_rng(seed).random((N_CELLS, n_peaks)) < p_open


def trap(is_open: np.ndarray):
    """Return the log change of a gene with three peaks of which one suffices (1.6), and three that add 0.35 each."""

    def expression(left: np.ndarray) -> np.ndarray:
        return 1.6 * left[..., REDUNDANT].any(axis=-1) + 0.35 * left[..., ADDITIVE].sum(axis=-1)

    return lambda masks: expression(is_open & ~masks[:, None, :]) - expression(is_open)


def gate(is_open: np.ndarray, logic):
    """Return the log change of a gene with one gate."""
    return lambda masks: logic(is_open & ~masks[:, None, :], axis=-1).astype(float) - logic(is_open, axis=-1)


def mask(members) -> np.ndarray:
    """Return the set as one Boolean row."""
    return np.isin(np.arange(len(NAMES)), list(members))[None]


def paths(drop) -> dict[str, list[float]]:
    """Return the drop for 1, 2, … removed peaks, by how they are chosen."""
    everything = range(len(NAMES))
    by_single = sorted(everything, key=lambda j: -drop([j]))
    greedy, left, kept = [], list(everything), list(everything)
    backward = {len(NAMES): drop(kept)}
    while left:
        best = max(left, key=lambda j: drop([*greedy, j]))
        greedy.append(best)
        left.remove(best)
    while len(kept) > 1:
        kept.remove(max(kept, key=lambda j: drop([k for k in kept if k != j])))
        backward[len(kept)] = drop(kept)
    sizes = range(1, len(NAMES) + 1)
    return {
        "best set": [max(map(drop, combinations(everything, n))) for n in sizes],
        "backward elimination": [backward[n] for n in sizes],
        "forward greedy": [drop(greedy[:n]) for n in sizes],
        "largest alone": [drop(by_single[:n]) for n in sizes],
    }


def bars(ax, found) -> None:
    """Draw what each peak does alone and last."""
    place = np.arange(len(NAMES))
    ax.bar(place - 0.2, found.single.value, 0.38, color="0.75", edgecolor="black", label="removed alone")
    ax.bar(
        place + 0.2, found.last_in.value, 0.38, color=_style.COLOURS[0], edgecolor="black", hatch="///",
        label="removed last",
    )  # fmt: skip
    ax.set_xticks(place, NAMES)
    ax.set_ylabel("drop in log expression")
    ax.set_title("a  One at a time, the redundant are last", loc="left")
    ax.legend(frameon=False)


def curves(ax, found: dict[str, list[float]]) -> None:
    """Draw the drop against the size of the set."""
    sizes = np.arange(1, len(NAMES) + 1)
    styles = {
        "best set": ("o", "black", _style.DASHES[0], 9),
        "backward elimination": ("D", _style.COLOURS[2], _style.DASHES[2], 4.5),
        "forward greedy": ("s", _style.COLOURS[1], _style.DASHES[1], 6),
        "largest alone": ("^", _style.COLOURS[0], _style.DASHES[3], 4.5),
    }
    for name, (marker, colour, dash, size) in styles.items():
        fill = "none" if name == "best set" else colour
        ax.plot(
            sizes, found[name], marker=marker, color=colour, linestyle=dash, markersize=size, markerfacecolor=fill,
            label=name,
        )  # fmt: skip
    ax.set_xlabel("peaks removed")
    ax.set_ylabel("drop in log expression")
    ax.set_ylim(0, None)
    ax.set_title("b  A group pays only once it is whole", loc="left")
    ax.legend(frameon=False, loc="lower right")


def detection(ax) -> None:
    """Draw the additivity index against how often a peak is seen open: closed forms, and what the kernel finds."""
    p = np.linspace(0.05, 0.9, 100)
    drawn = np.linspace(0.1, 0.9, 9)
    closed = {
        "OR of 3": (np.any, 3, (1 - (1 - p) ** 3) / (3 * p * (1 - p) ** 2)),
        "OR of 2": (np.any, 2, (1 - (1 - p) ** 2) / (2 * p * (1 - p))),
        "additive": (np.sum, 2, np.ones_like(p)),
        "AND of 2": (np.all, 2, np.full_like(p, 0.5)),
    }
    for i, (name, (logic, size, line)) in enumerate(closed.items()):
        ax.plot(p, line, color=_style.COLOURS[i], linestyle=_style.DASHES[i], label=name)
        found = [epistasis(gate(open_cells(size, q), logic), size, n_boot=0).additivity.value for q in drawn]
        ax.plot(drawn, found, color=_style.COLOURS[i], marker=_style.MARKERS[i], linestyle="none", markersize=5)
    ax.set_yscale("log")
    ticks = (0.5, 1, 2, 5, 10, 20, 40)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(0.4, 50)
    ax.set_xlabel("share of cells in which a peak is seen open")
    ax.set_ylabel("whole / sum of single drops")
    ax.set_title("c  Few reads hide redundancy", loc="left")
    ax.legend(frameon=False)


def main() -> None:
    """Compute and draw."""
    log_change = trap(open_cells(len(NAMES), P_OPEN))
    found = paths(lambda members: -float(log_change(mask(members)).mean()))
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold"}):
        figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.5), layout="constrained")
        bars(axes[0], epistasis(log_change, len(NAMES), n_boot=0))
        curves(axes[1], found)
        detection(axes[2])
        for ax in axes:
            _style.tidy(ax)
        figure.savefig(OUT, dpi=150)
    for name, drops in found.items():
        print(f"{name:22s}", np.round(drops, 2))  # noqa: T201


if __name__ == "__main__":
    main()
