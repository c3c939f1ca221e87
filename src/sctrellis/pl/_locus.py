from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import sets as _sets
from sctrellis._core import slots
from sctrellis.pl import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

# Where things lie below the line of the genome, in heights of the highest arc.
_GENE = (-0.15, 0.05)
_TRACK = (-0.42, 0.2)
_LABELS = (-0.5, -0.6)
_THICKEST = 5.0


def locus(
    mdata: "MuData",
    target: str | None = None,
    group: str | None = None,
    *,
    key: str = "grids",
    cis: str = "cis",
    rna: str = "rna",
    atac: str = "atac",
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw the element set of a gene along the genome: arcs from its peaks to the start of transcription.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC with coordinates, and the result of ``tl.grids`` or ``tl.attribution``.
    target
        The gene; may be left out where the result has one set only.
    group
        Group of cells; may be left out where the gene has one set only.
    key
        Name of that result in ``mdata.uns``.
    cis
        Key of the links of genes to peaks in ``mdata.varp``, from which the gene's other peaks are drawn.
    rna
        Modality with the genes and their coordinates.
    atac
        Modality with the peaks and their coordinates.
    ax
        Axes to draw in; None makes a figure.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot` for the arcs.

    Returns
    -------
    matplotlib.axes.Axes
        Arcs are the thicker the larger the gain of the peak; solid where expression falls when it is perturbed, dashed
        where it rises. Below them the gene, with an arrow in the direction of transcription, and the peaks, the higher
        the more cells have them open; selected ones are coloured and numbered by rank. Peaks on other chromosomes are
        counted in the title.

    Raises
    ------
    KeyError
        If there is no such result, target or group.
    ValueError
        If several sets fit, the gene has no coordinates, or a selected peak is none of the ATAC modality.

    Examples
    --------
    >>> import pandas as pd, sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(60)
    >>> sets = mdata.uns["truth"][["group", "target", "peak"]].assign(rank=1, gain=-0.2)
    >>> mdata.uns["grids"] = {"schema": 1, "method": "grids", "sets": sets, "tasks": mdata.uns["targets"]}
    >>> tr.pl.locus(mdata, sets["target"].iloc[0]).get_xlabel()
    'position on chr2 (Mb)'
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    genes, peaks = slots.multiome(mdata, rna, atac)
    sets = _sets.read(mdata, key).one(target, group).sets.sort_values("rank")
    name = str(sets["target"].iloc[0])
    at = slots.positions(genes, [name], f"mdata.uns[{key!r}]")
    gene = slots.coordinates(genes, f"mdata[{rna!r}]", ("chrom", "start", "end", "tss")).iloc[at[0]]
    if gene["chrom"] == "" or gene["tss"] < 0:
        msg = f"`target`: {name!r} has no coordinates. `sctrellis.pp.multiome(rna, atac, genes=...)` writes them."
        raise ValueError(msg)
    where = slots.coordinates(peaks, f"mdata[{atac!r}]").assign(height=slots.openness(peaks))
    chosen = where.iloc[slots.positions(peaks, sets["peak"], f"mdata.uns[{key!r}]")].reset_index(drop=True)
    chosen = chosen.assign(gain=sets["gain"].to_numpy(), rank=sets["rank"].to_numpy())
    n_elsewhere = int((chosen["chrom"] != gene["chrom"]).sum())
    chosen = chosen[chosen["chrom"] == gene["chrom"]]
    others = _candidates(mdata, where, at[0], cis, (rna, atac)).drop(sets["peak"], errors="ignore")
    others = others[others["chrom"] == gene["chrom"]]

    ax = _style.axes(ax, (8.0, 3.6))
    shown = pd.concat([table for table in (chosen, others) if len(table)] or [chosen])
    low = min(shown["start"].min(), gene["start"]) if len(shown) else gene["start"]
    high = max(shown["end"].max(), gene["end"]) if len(shown) else gene["end"]
    margin = 0.03 * (high - low)
    ax.set_xlim((low - margin) / 1e6, (high + margin) / 1e6)

    tss = gene["tss"] / 1e6
    centre = (chosen["start"] + chosen["end"]).to_numpy() / 2e6
    share = np.abs(chosen["gain"]) / (sets["gain"].abs().max() or 1.0)
    reach = np.abs(centre - tss).max(initial=0) or 1.0
    for x, gain, weight in zip(centre, chosen["gain"], share, strict=True):
        falls = gain <= 0
        turn = np.linspace(0, np.pi, 80)
        height = 0.25 + 0.75 * np.abs(x - tss) / reach
        options = {
            "color": _style.COLOURS[0 if falls else 1],
            "linestyle": "-" if falls else (0, (4, 1.5)),
            "linewidth": 0.8 + (_THICKEST - 0.8) * weight,
            "solid_capstyle": "butt",
            **kwargs,
        }
        ax.plot((x + tss) / 2 + (x - tss) / 2 * np.cos(turn), height * np.sin(turn), **options)

    ax.axhline(0, color="black", linewidth=1.0)
    bottom, thickness = _GENE
    width = max(gene["end"] - gene["start"], 0.002 * (high - low)) / 1e6
    ax.add_patch(Rectangle((gene["start"] / 1e6, bottom), width, thickness, color="0.2"))
    # The arrow runs between the line of the genome and the gene.
    forward = str(genes.var["strand"].iloc[at[0]]) != "-"
    way = (1 if forward else -1) * 0.05 * (high - low) / 1e6
    ax.annotate(
        "", (tss + way, bottom / 3), (tss, bottom / 3),
        arrowprops={"arrowstyle": "-|>", "color": "0.2", "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    ax.plot([tss, tss], [bottom, 0], color="0.2", linewidth=1.2)

    base, tallest = _TRACK
    often = shown["height"].max() if len(shown) else 1.0
    ax.axhline(base, color="0.6", linewidth=0.8)
    for table, colour in ((others, "0.7"), (chosen, _style.COLOURS[0])):
        thick = np.maximum(table["end"] - table["start"], 0.004 * (high - low)) / 1e6
        middle = (table["start"] + table["end"]) / 2e6
        ax.bar(
            middle, tallest * table["height"].to_numpy() / (often or 1.0), thick, bottom=base, linewidth=0, color=colour
        )
    for place, i in enumerate(np.argsort(centre)):
        ax.text(
            centre[i], _LABELS[place % 2], f"{chosen['rank'].iloc[i]:.0f}", ha="center", va="center", fontsize="small",
            color=_style.INK,
        )  # fmt: skip
    ax.set_ylim(_LABELS[1] - 0.06, 1.06)
    ax.set_yticks([(_LABELS[0] + _LABELS[1]) / 2, base + tallest / 2, bottom + thickness / 2], ["rank", "peaks", name])
    ax.tick_params(axis="y", length=0)
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.set_xlabel(f"position on {gene['chrom']} (Mb)")
    _style.tidy(ax)
    ax.spines["left"].set_visible(False)
    elsewhere = f", {n_elsewhere} on other chromosomes" if n_elsewhere else ""
    ax.set_title(f"{name} in {sets['group'].iloc[0]}: {len(sets)} peaks{elsewhere}", loc="left", fontsize="medium")
    largest = float(sets["gain"].abs().max())
    ways: tuple[tuple[int, Any, str, bool], ...] = (
        (0, "-", "expression falls", bool((chosen["gain"] <= 0).any())),
        (1, (0, (4, 1.5)), "expression rises", bool((chosen["gain"] > 0).any())),
    )
    signs = [
        Line2D([], [], color=_style.COLOURS[i], linestyle=dash, linewidth=2.5, label=label)
        for i, dash, label, there in ways
        if there
    ]
    scale = [
        Line2D([], [], color="0.4", linewidth=0.8 + (_THICKEST - 0.8) * part, label=f"{part * largest:.2g} log units")
        for part in (1.0, 0.3)
    ]
    _style.legend(ax, [*signs, *scale])
    return ax


def _candidates(mdata: "MuData", where: pd.DataFrame, gene: int, cis: str, names: tuple[str, str]) -> pd.DataFrame:
    """Return the peaks linked to a gene, none where there are no links."""
    if cis not in mdata.varp:
        return where.iloc[:0]
    links = slots.read_cis(mdata, cis, rna=names[0], atac=names[1])
    return where.iloc[links.indices[links.indptr[gene] : links.indptr[gene + 1]]]
