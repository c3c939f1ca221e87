from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sctrellis._core import audited, checks, logs, slots
from sctrellis.get import _pairs
from sctrellis.pl import _labels, _style

if TYPE_CHECKING:
    import networkx as nx
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_LAYOUTS = ("kamada_kawai", "spring")
_APART = (1.9, 0.8)  # room between parts, in edge lengths, across (for labels) and down
_ASPECT = 1.4  # width over height that rows of parts aim at
_WIDTHS = (1.0, 3.0)
_SIZES = (80.0, 45.0)  # regulator and target, in square points as scatter takes them


def network(
    adata: "AnnData | MuData",
    key: str,
    *,
    genes: str | Sequence[str] | None = None,
    n_edges: int = 40,
    min_score: float | None = None,
    layout: Literal["kamada_kawai", "spring"] = "kamada_kawai",
    seed: int | None = 0,
    mod: str | None = None,
    ax: "Axes | None" = None,
    **kwargs: Any,
) -> "Axes":
    """Draw the strongest edges of a network, over all genes or round chosen ones.

    Regulators are filled squares, other genes open circles. The width of an edge is its score. Where the method gives
    signs, a positive edge is a solid arrow and a negative one a dashed line that ends in a bar.

    Parameters
    ----------
    adata
        The AnnData, or a MuData with ``mod``.
    key
        Name of the network in ``adata.varp``.
    genes
        Draw edges into and out of these genes, which take turns so that each is shown: the strongest edge of each, then
        the second of each, and so on. None draws the strongest edges of the network.
    n_edges
        Number of edges to draw. Labels stay readable up to about 40 edges or 30 genes in a figure of the default size.
    min_score
        Draw edges with at least this score only, in the units of the method; at least 0. Pairs with score 0 and known
        non-edges are never drawn.
    layout
        ``"kamada_kawai"`` places genes so that distances follow the number of steps between them, the same way each
        time; ``"spring"`` lets edges pull and genes push, from random places. One gene with its neighbours is a ring
        in either, clockwise from the strongest edge on top, and parts without a common edge stand side by side.
    seed
        Seed of ``layout="spring"``, in [0, 2**32); None draws one and records it in the log.
    mod
        Modality to use where ``adata`` is a MuData.
    ax
        Axes to draw in; None makes a figure. Give them their final size and limits first: labels are placed for it.
    **kwargs
        Passed to the labels, as in ``fontsize=9``; see :class:`matplotlib.text.Text`.

    Returns
    -------
    matplotlib.axes.Axes
        Each edge is a patch with the gid ``"SOURCE->TARGET"``, each gene a text.

    Raises
    ------
    KeyError
        If there is no such network.
    ValueError
        If a gene or layout is unknown, or if there is no edge to draw.

    References
    ----------
    Kamada & Kawai (1989), An algorithm for drawing general undirected graphs, Information Processing Letters 31, 7-15.
    Fruchterman & Reingold (1991), Graph drawing by force-directed placement, Software: Practice and Experience 21,
    1129-1164. Both as implemented in networkx.

    Examples
    --------
    >>> import anndata, numpy as np, sctrellis as tr
    >>> from scipy.sparse import csr_matrix
    >>> adata = anndata.AnnData(np.ones((3, 3), np.float32))
    >>> adata.var_names = ["GATA1", "KLF1", "SPI1"]
    >>> adata.varp["net"] = csr_matrix(np.array([[0, 0.9, -0.4], [0, 0, 0], [-0.7, 0.1, 0]], np.float32))
    >>> ax = tr.pl.network(adata, "net", genes="SPI1", n_edges=2)
    >>> sorted(patch.get_gid() for patch in ax.patches)
    ['GATA1->SPI1', 'SPI1->GATA1']
    """
    import networkx as nx
    from matplotlib import patheffects

    checks.choice("layout", layout, _LAYOUTS)
    n_edges, seed = checks.integer("n_edges", n_edges), checks.seed(seed)
    ad = slots.source(adata, mod)
    chosen = np.zeros(ad.n_vars, dtype=bool)
    if genes is not None:
        chosen[checks.gene_positions("genes", genes, ad.var_names)] = True
    least = 0.0 if min_score is None else checks.number("min_score", min_score, low=0)
    pairs = _pairs.read(ad, key)
    regulates = np.isin(np.arange(ad.n_vars), pairs.row)
    pairs = pairs.take((pairs.score > 0) & (pairs.score >= least) & (pairs.row != pairs.column))
    signed = bool((pairs.weight < 0).any())
    pairs = pairs.strongest(n_edges).ordered() if genes is None else _in_turns(pairs, chosen, n_edges)
    if not len(pairs.score):
        where = "" if genes is None else f" at {checks.some(ad.var_names[chosen])}"
        msg = f"`adata.varp[{key!r}]` has no edge to draw{where}. Lower `min_score`, or choose other `genes`."
        raise ValueError(msg)

    nodes = np.array(list(dict.fromkeys(np.column_stack([pairs.row, pairs.column]).ravel())))
    absent = np.setdiff1d(np.flatnonzero(chosen), nodes)
    if len(absent):
        checks.warn(f"{len(absent)} of `genes` have no edge among those drawn ({checks.some(ad.var_names[absent])}).")
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(nodes.tolist())
    graph.add_edges_from(zip(pairs.row.tolist(), pairs.column.tolist(), strict=True))
    if layout == "spring":
        logs.logger.info("layout of %r with seed %d", key, seed)
    position = _positions(graph, layout, seed)

    ax = _style.axes(ax, (7.0, 5.0))
    sizes = np.where(regulates[nodes], *_SIZES)
    at = np.array([position[node] for node in nodes])
    for kind, marker in ((True, "s"), (False, "o")):
        rows = regulates[nodes] == kind
        heavy = chosen[nodes[rows]]
        x, y = at[rows].T
        ax.scatter(
            x,
            y,
            s=sizes[rows],
            marker=marker,
            facecolors=["black" if h else "0.5" for h in heavy] if kind else ["0.8" if h else "white" for h in heavy],
            edgecolors="black",
            linewidths=[2.0 if h else 1.0 for h in heavy],
            zorder=3,
        )
    _draw_edges(ax, pairs, position, np.sqrt(np.where(regulates, *_SIZES)) / 2, signed=signed)
    ax.set_axis_off()
    ax.margins(0.1)
    ax.set_title(key, loc="left")
    _legend(ax, pairs, regulates[nodes], chosen[nodes], signed=signed)

    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    look = {"fontsize": 8, "color": "black", "path_effects": halo, "zorder": 4, **kwargs}
    texts = [
        ax.annotate(
            ad.var_names[node],
            position[node],
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontweight="bold" if chosen[node] else "normal",
            **look,
        )
        for node in nodes
    ]
    _style.banner(ax, audited.say(ad, key))
    # Only now are the axes as large as they will be, beside the legend.
    ax.figure.canvas.figure.draw_without_rendering()
    ends = np.array([(position[r], position[c]) for r, c in zip(pairs.row, pairs.column, strict=True)])
    _labels.place(ax, texts, at, np.sqrt(sizes) / 2, ends)
    return ax


def _in_turns(pairs: _pairs.Pairs, chosen: np.ndarray, n: int) -> _pairs.Pairs:
    """Return ``n`` pairs at the chosen genes: the strongest of each gene, then the second of each, and so on."""
    pairs = pairs.take(chosen[pairs.row] | chosen[pairs.column]).ordered()
    place = np.arange(len(pairs.score))
    gene = np.concatenate([pairs.row, pairs.column])
    pair = np.concatenate([place, place])
    mine = chosen[gene]
    entries = pd.DataFrame({"gene": gene[mine], "pair": pair[mine]}).sort_values("pair", kind="stable")
    # Pairs come strongest first: a gene's turn is how many of its pairs came before.
    entries["turn"] = entries.groupby("gene").cumcount()
    turn = entries.groupby("pair")["turn"].min().reindex(place).to_numpy()
    return pairs.take(np.lexsort((place, turn))[:n]).ordered()


def _positions(graph: "nx.DiGraph", layout: str, seed: int) -> dict[int, Any]:
    """Return where to put each node: connected parts one by one, then side by side in rows, tallest first."""
    import networkx as nx

    undirected = graph.to_undirected()
    order = {node: i for i, node in enumerate(graph)}
    parts = []
    for together in nx.connected_components(undirected):
        part: nx.Graph[int] = nx.Graph()
        # In the order of the graph: the layouts start from it.
        part.add_nodes_from(sorted(together, key=order.__getitem__))
        part.add_edges_from(undirected.edges(part))
        place = _place(part, layout, seed)
        at = np.array([place[node] for node in part])
        at = at / np.mean([np.linalg.norm(place[a] - place[b]) for a, b in part.edges])
        at = at - at.min(axis=0)
        parts.append((list(part), at, at.max(axis=0) + _APART))
    result: dict[int, Any] = {}
    row_width = max(*(size[0] for *_, size in parts), np.sqrt(_ASPECT * sum(size.prod() for *_, size in parts)), 0.0)
    corner, height = np.zeros(2), 0.0
    for nodes, at, size in sorted(parts, key=lambda part: -part[2][1]):
        if corner[0] > 0 and corner[0] + size[0] > row_width:
            corner, height = np.array([0.0, corner[1] - height]), 0.0
        height = max(height, size[1])
        result.update(zip(nodes, at + corner - [0, size[1]], strict=True))
        corner = corner + [size[0], 0]
    return result


def _place(part: "nx.Graph", layout: str, seed: int) -> dict[int, Any]:
    """Return where to put each node of a connected graph."""
    import networkx as nx

    hub, n_neighbours = max(part.degree, key=lambda pair: pair[1])
    if n_neighbours == part.number_of_edges() == len(part) - 1:
        # One gene with its neighbours: a ring, clockwise from the strongest edge on top.
        ring = [node for node in part if node != hub]
        angle = np.pi / 2 - 2 * np.pi * np.arange(len(ring)) / len(ring)
        return {hub: np.zeros(2), **dict(zip(ring, np.column_stack([np.cos(angle), np.sin(angle)]), strict=True))}
    if layout == "spring":
        return nx.spring_layout(part, iterations=200, seed=seed)
    return nx.kamada_kawai_layout(part)


def _widths(score: Any, largest: float) -> Any:
    """Return line widths in points."""
    return _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * score / largest


def _arrow(start: Any, end: Any, sign: str, width: float, **kwargs: Any) -> Any:
    """Return an arrow that shows the sign of an edge without colour too."""
    from matplotlib.patches import ArrowStyle, FancyArrowPatch

    tip = ArrowStyle("-|>", head_length=0.45, head_width=0.22)
    style = {
        "unknown": {"color": "0.35", "arrowstyle": tip},
        "positive": {"color": _style.COLOURS[0], "arrowstyle": tip},
        "negative": {
            "color": _style.COLOURS[1],
            # The bar is shorter than a dash, so that it is never broken.
            "arrowstyle": ArrowStyle("-[", widthB=0.26, lengthB=0),
            "linestyle": (0, (6, 1.5)),
        },
    }[sign]
    return FancyArrowPatch(start, end, linewidth=width, **{"mutation_scale": 9.5 + 2 * width, **style, **kwargs})


def _draw_edges(ax: "Axes", pairs: _pairs.Pairs, position: dict[int, Any], radius: np.ndarray, *, signed: bool) -> None:
    """Add one arrow per pair, the weakest first; two genes that regulate each other get two arcs."""
    both = set(zip(pairs.row.tolist(), pairs.column.tolist(), strict=True))
    widths = _widths(pairs.score, pairs.score.max())
    for i in range(len(widths))[::-1]:
        source, target = int(pairs.row[i]), int(pairs.column[i])
        arrow = _arrow(
            position[source],
            position[target],
            ("negative" if pairs.weight[i] < 0 else "positive") if signed else "unknown",
            widths[i],
            shrinkA=radius[source] + 1,
            shrinkB=radius[target] + 2.5,
            connectionstyle=f"arc3,rad={0.12 if (target, source) in both else 0}",
            zorder=2,
        )
        arrow.set_gid(f"{pairs.genes[source]}->{pairs.genes[target]}")
        ax.add_patch(arrow)


def _legend(ax: "Axes", pairs: _pairs.Pairs, regulates: np.ndarray, chosen: np.ndarray, *, signed: bool) -> None:
    """Explain shapes, signs and widths beside the axes."""
    from matplotlib.legend_handler import HandlerPatch
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch

    def node(label: str, marker: str, size: float, fill: str, edge: float = 1.0) -> Any:
        mark = {"markersize": np.sqrt(size), "markerfacecolor": fill, "markeredgecolor": "black"}
        return Line2D([], [], linestyle="", marker=marker, markeredgewidth=edge, label=label, **mark)

    def redraw(*, orig_handle: Any, width: float, height: float, **_: Any) -> Any:
        return _arrow(
            (0, height / 2),
            (width, height / 2),
            orig_handle.sign,
            orig_handle.get_linewidth(),
            shrinkA=0,
            shrinkB=0,
        )

    handles: list[Any] = [node("regulator", "s", _SIZES[0], "0.5")]
    if not regulates.all():
        handles.append(node("target", "o", _SIZES[1], "white"))
    if chosen.any():
        square = regulates[chosen].any()
        handles.append(node("chosen gene", "s" if square else "o", _SIZES[0], "black" if square else "0.8", 2.0))
    for sign in ("positive", "negative") if signed else ("unknown",):
        handle = _arrow((0, 0), (1, 0), sign, 1.5, label=f"{sign} effect" if signed else "edge")
        handle.sign = sign
        handles.append(handle)
    low, high = pairs.score.min(), pairs.score.max()
    for score in dict.fromkeys((f"{high:.2g}", f"{low:.2g}")):
        width = _widths(float(score), float(high))
        handles.append(Line2D([0, 1], [0, 0], color="0.35", linewidth=width, label=f"score {score}"))
    _style.legend(ax, handles, handler_map={FancyArrowPatch: HandlerPatch(patch_func=redraw)}, handlelength=2.4)
