import logging

import anndata
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import ArrowStyle
from scipy import sparse

import sctrellis as tr
from sctrellis._core import slots

REGULATORS = ["GATA1", "SPI1", "KLF1", "TAL1", "CEBPA", "RUNX1", "IRF8", "STAT1"]
TARGETS = ["HBB", "ALAS2", "EPOR", "CSF1R", "CD14", "LYZ", "S100A8", "CD79A", "MS4A1", "HLA-DRA", "HIST1H2AC", "GYPA"]
TARGETS += ["NKG7", "GNLY", "IL7R", "CST3", "FCER1A", "PPBP", "PF4", "MPO", "CD3D", "CD19", "ISG15", "MX1"]


def make(sign=True):
    rng = np.random.default_rng(0)
    genes = [*REGULATORS, *TARGETS]
    scores = rng.normal(size=(len(REGULATORS), len(genes))).astype(np.float32) ** 3
    scores = scores if sign else np.abs(scores)
    adata = anndata.AnnData(np.ones((12, len(genes)), np.float32))
    adata.var_names = genes
    network = slots.network_csr(scores, np.arange(len(REGULATORS)), np.arange(len(genes)), len(genes))
    slots.write(adata, varp={"net": network})
    return adata


def drawn(ax):
    return {tuple(patch.get_gid().split("->")): patch for patch in ax.patches}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def names(ax):
    return {text.get_text(): text for text in ax.texts}


def pairs(table):
    return set(zip(table["source"], table["target"], strict=True))


@pytest.mark.parametrize("layout", ["kamada_kawai", "spring"])
@pytest.mark.parametrize("n", [1, 12, 40])
def test_strongest_edges_are_drawn(n, layout):
    adata = make()
    ax = tr.pl.network(adata, "net", n_edges=n, layout=layout)
    table = tr.get.edges(adata, "net", n_top=n)
    assert set(drawn(ax)) == pairs(table)
    assert len(ax.patches) == n
    assert set(names(ax)) == set(table["source"]) | set(table["target"])


def test_widths_rise_with_the_score():
    adata = make()
    patches = drawn(tr.pl.network(adata, "net", n_edges=20))
    table = tr.get.edges(adata, "net", n_top=20)
    widths = np.array([patches[pair].get_linewidth() for pair in zip(table["source"], table["target"], strict=True)])
    slope = np.diff(widths) / np.diff(table["score"])
    np.testing.assert_allclose(slope, slope[0], rtol=1e-3)
    assert slope[0] > 0


def test_sign_shows_without_colour():
    adata = make()
    ax = tr.pl.network(adata, "net")
    weight = {(row.source, row.target): row.weight for row in tr.get.edges(adata, "net", n_top=40).itertuples()}
    assert {w < 0 for w in weight.values()} == {True, False}
    for pair, patch in drawn(ax).items():
        assert (patch.get_linestyle() != "solid") == (weight[pair] < 0)
        assert isinstance(patch.get_arrowstyle(), ArrowStyle.BracketB) == (weight[pair] < 0)
    assert legend(ax)[:4] == ["regulator", "target", "positive effect", "negative effect"]


def test_no_signs_are_claimed_where_there_are_none():
    ax = tr.pl.network(make(sign=False), "net")
    assert legend(ax)[:3] == ["regulator", "target", "edge"]
    assert len({patch.get_edgecolor() for patch in ax.patches}) == 1


def test_known_non_edges_are_not_drawn():
    adata = anndata.AnnData(np.ones((12, 3), np.float32))
    adata.var_names = ["A", "B", "C"]
    labels = sparse.csr_matrix(np.array([[0, -1, 0.5], [0, 0, 0], [1, 0, 0]], np.float32))
    slots.write(adata, varp={"net": labels}, uns={"net": {"schema": 1, "method": "network"}})
    ax = tr.pl.network(adata, "net")
    assert set(drawn(ax)) == {("A", "C"), ("C", "A")}
    assert "edge" in legend(ax)


def test_one_gene_shows_its_strongest_edges_in_a_ring():
    adata = make()
    ax = tr.pl.network(adata, "net", genes="SPI1", n_edges=10)
    table = tr.get.edges(adata, "net")
    table = table[(table["source"] == "SPI1") | (table["target"] == "SPI1")].head(10)
    assert set(drawn(ax)) == pairs(table)
    at = {name: np.array(text.xy) for name, text in names(ax).items()}
    hub = at.pop("SPI1")
    np.testing.assert_allclose([np.linalg.norm(place - hub) for place in at.values()], 1)


def test_chosen_genes_take_turns():
    adata = make()
    # GATA1's edges are made the strongest by far: it must not crowd the others out.
    adata.varp["net"] = sparse.csr_matrix(
        sparse.diags(np.where(adata.var_names == "GATA1", 100, 1)) @ adata.varp["net"]
    )
    chosen, table = ["GATA1", "CD14", "MX1"], tr.get.edges(adata, "net")
    ax = tr.pl.network(adata, "net", genes=chosen, n_edges=9)
    assert len(ax.patches) == 9
    for gene in chosen:
        own = table[(table["source"] == gene) | (table["target"] == gene)]
        assert pairs(own.head(2)) <= set(drawn(ax))
    assert all(set(pair) & set(chosen) for pair in drawn(ax))
    assert {name for name, text in names(ax).items() if text.get_fontweight() == "bold"} == set(chosen)
    assert "chosen gene" in legend(ax)


def test_min_score_leaves_the_roles():
    adata = make()
    table = tr.get.edges(adata, "net")
    least = float(table["score"].iloc[4])
    ax = tr.pl.network(adata, "net", min_score=least)
    assert set(drawn(ax)) == pairs(table.head(5))
    squares = ax.collections[0].get_offsets()
    shown = {name for name, text in names(ax).items() if (squares == np.array(text.xy)).all(axis=1).any()}
    assert shown == set(names(ax)) & set(REGULATORS)


def boxes(ax):
    ax.figure.canvas.draw()
    return {name: text.get_window_extent() for name, text in names(ax).items()}


@pytest.mark.parametrize(
    "options",
    [
        {"n_edges": 40},
        {"n_edges": 40, "layout": "spring"},
        {"n_edges": 29, "genes": "GATA1"},
        {"n_edges": 30, "genes": ["GATA1", "SPI1", "KLF1"]},
    ],
)
def test_labels_are_apart_and_in_the_axes(options):
    ax = tr.pl.network(make(), "net", **options)
    extents = boxes(ax)
    assert len(extents) >= 20
    frame = ax.get_window_extent()
    where = {name: ax.transData.transform(text.xy) for name, text in names(ax).items()}
    covered = 0.0
    for name, box in extents.items():
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        for other, second in extents.items():
            if other == name:
                continue
            shared = box.intersection(box, second)
            covered += 0 if shared is None else shared.width * shared.height
            assert not box.contains(*where[other]), f"{name} lies on {other}"
    # No more than a hundredth of the labels' area is shared between them.
    assert covered < 0.02 * sum(box.width * box.height for box in extents.values())


def test_same_seed_same_places_and_random_states_stay():
    adata = make()
    state = np.random.get_state()[1].copy()  # noqa: NPY002

    def places(**options):
        ax = tr.pl.network(adata, "net", layout="spring", **options)
        return np.array([text.xy for text in ax.texts])

    np.testing.assert_array_equal(places(seed=3), places(seed=3))
    assert not np.allclose(places(seed=3), places(seed=4))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_drawn_seed_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="sctrellis"):
        ax = tr.pl.network(make(), "net", layout="spring", seed=None)
    seed = int(caplog.messages[-1].split()[-1])
    again = tr.pl.network(make(), "net", layout="spring", seed=seed)
    np.testing.assert_array_equal([t.xy for t in ax.texts], [t.xy for t in again.texts])


@pytest.mark.parametrize("layout", ["kamada_kawai", "spring"])
def test_separate_parts_stay_apart_and_edges_stay_long(layout):
    adata = anndata.AnnData(np.ones((12, 40), np.float32))
    dense = np.zeros((40, 40), np.float32)
    members = [[0, 1, 2, 3, 4], [5, 6, 7, 8], *([i, i + 1] for i in range(9, 31, 2))]
    for part in members:
        dense[part[0], part[1:]] = 1
    dense[1, 2] = dense[3, 4] = dense[7, 8] = 0.5
    slots.write(adata, varp={"net": sparse.csr_matrix(dense)})
    ax = tr.pl.network(adata, "net", layout=layout)
    at = {int(name): np.array(text.xy) for name, text in names(ax).items()}
    assert sorted(at) == sorted(sum(members, []))
    corners = [np.array([[at[i] for i in part]])[0] for part in members]
    frames = [(xy.min(axis=0), xy.max(axis=0)) for xy in corners]
    for i, (low, high) in enumerate(frames):
        for other_low, other_high in frames[:i]:
            assert (np.maximum(low, other_low) - np.minimum(high, other_high)).max() > 0.5
    points = {i: ax.transData.transform(xy) * 72 / ax.figure.dpi for i, xy in at.items()}
    assert min(np.linalg.norm(points[i] - points[j]) for i, j in np.argwhere(dense)) > 25


def test_given_axes_and_text_options():
    _, ax = plt.subplots()
    assert tr.pl.network(make(), "net", n_edges=5, ax=ax, fontsize=5) is ax
    assert {text.get_fontsize() for text in ax.texts} == {5}
    assert not ax.axison


def test_a_chosen_gene_that_is_not_drawn_is_named():
    with pytest.warns(UserWarning, match=r"2 of `genes` have no edge among those drawn \('"):
        tr.pl.network(make(), "net", genes=["HBB", "EPOR", "CD14"], n_edges=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "nett"}, KeyError, "'nett' not found in `adata.varp`"),
        ({"genes": ["gata1"]}, ValueError, r"1 of 1 `genes` are not in .* Did you mean 'GATA1'\?"),
        ({"n_edges": 0}, ValueError, "`n_edges` to be at least 1"),
        ({"layout": "circle"}, ValueError, "`layout` to be one of 'kamada_kawai', 'spring'; found 'circle'"),
        ({"seed": -1}, ValueError, "`seed` to be at least 0"),
        ({"min_score": -1}, ValueError, "`min_score` to lie in"),
        ({"min_score": 1e9, "genes": "HBB"}, ValueError, r"has no edge to draw at 'HBB'. Lower `min_score`"),
    ],
)
def test_messages(options, error, message):
    with pytest.raises(error, match=message):
        tr.pl.network(make(), **{"key": "net", **options})
    assert not plt.get_fignums()


def test_log_odds_are_drawn_without_signs():
    adata = make()
    adata.uns["net"] = {"schema": 1, "method": "regnet", "score_scale": "log_odds"}
    ax = tr.pl.network(adata, "net", n_edges=15)
    assert not any("effect" in text for text in legend(ax))
    strongest = tr.get.edges(adata, "net", n_top=15)
    assert set(drawn(ax)) == pairs(strongest)
    assert strongest["weight"].min() > 0.5
