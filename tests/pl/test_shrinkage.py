import re
from functools import cache

import numpy as np
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr

# A model this small and short may be flat; what it says does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore:The latent means of the genes use")


@cache
def _measured():
    adata = tr.datasets.toy()
    tr.pp.split_edges(adata, "network")
    tr.tl.regnet(adata, network="network", max_epochs=1, hidden=16, latent=16)
    tr.tl.shrinkage(adata, n_init=2, n_rewired=2, n_boot=20)
    for i, name in enumerate(("X_regnet_umap", "X_regnet_expression_umap")):
        adata.varm[name] = np.random.default_rng(i).random((adata.n_vars, 2)).astype(np.float32)
    return adata


@pytest.fixture
def adata():
    return _measured().copy()


def points(ax, label):
    (found,) = (c for c in ax.collections if c.get_label() == label)
    return np.asarray(found.get_offsets())


@pytest.mark.parametrize("panel", ["in_degree", "mean_expression"])
def test_points_are_genes_and_lines_the_stored_medians(adata, panel):
    ax = tr.pl.shrinkage(adata)[panel]
    weight, x = (adata.var[f"regnet_{name}"].to_numpy() for name in ("self_weight", panel))
    for label, which in (("regulator", adata.var["is_regulator"]), ("other gene", ~adata.var["is_regulator"])):
        found = points(ax, label)
        np.testing.assert_allclose(found[:, 0], x[which], rtol=1e-6)
        np.testing.assert_allclose(np.ma.filled(found[:, 1], np.nan), weight[which], rtol=1e-6)
    curves = tr.get.record(adata, "regnet_shrinkage")["curves"]
    for source in ("model", "random initialisation", "random neighbours"):
        (line,) = (one for one in ax.lines if one.get_label() == source)
        rows = curves[(curves["quantity"] == panel) & (curves["source"] == source)].sort_values("x")
        np.testing.assert_allclose(line.get_xdata(), rows["x"])
        np.testing.assert_allclose(line.get_ydata(), rows["value"])
    assert ax.get_ylim() == (0, 1)
    assert ax.get_ylabel() == "self weight"


@pytest.mark.parametrize(("most", "expected"), [(7, [0, 1, 2, 5]), (12, [0, 1, 2, 5, 10]), (300, [0, 1, 10, 100])])
def test_few_regulators_are_numbered_more_finely(adata, most, expected):
    degree = adata.var["regnet_in_degree"].to_numpy(copy=True)
    degree[degree.argmax()] = most
    adata.var["regnet_in_degree"] = np.minimum(degree, most)
    assert tr.pl.shrinkage(adata, panels="in_degree")["in_degree"].get_xticks().tolist() == expected


def test_genes_without_neighbours_are_counted_in_their_strip_and_not_drawn(adata):
    ax = tr.pl.shrinkage(adata, panels="in_degree")["in_degree"]
    n_alone = int((adata.var["regnet_in_degree"] == 0).sum())
    assert n_alone > 0
    assert [t.get_text() for t in ax.texts] == [f"{n_alone} genes without: undefined"]
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] == -0.5
    drawn = np.concatenate([points(ax, label) for label in ("regulator", "other gene")])
    assert not np.isfinite(np.ma.filled(np.ma.masked_invalid(drawn[drawn[:, 0] == 0, 1]), np.nan)).any()


def test_the_direction_names_the_axis(adata):
    adata.uns["regnet_shrinkage"] = adata.uns["regnet_shrinkage"] | {"direction": "targets"}
    assert tr.pl.shrinkage(adata)["in_degree"].get_xlabel() == "targets in the message graph"


def test_the_title_says_whether_it_is_shrinkage(adata):
    n = int(np.isfinite(adata.var["regnet_alignment"]).sum())
    aligned = int((adata.var["regnet_alignment"] >= 0.5).sum())
    title = f"Self share of sensitivity\n(aligned in {aligned} of {n} genes)"
    assert tr.pl.shrinkage(adata)["in_degree"].get_title(loc="left") == title
    assert tr.pl.alignment(adata).get_title(loc="left") == title


@pytest.mark.parametrize(("draw", "what"), [("shrinkage", "weight"), ("alignment", "alignment")])
def test_histograms_are_shares_of_model_and_controls(adata, draw, what):
    ax = (
        tr.pl.shrinkage(adata, panels="distribution")["distribution"] if draw == "shrinkage" else tr.pl.alignment(adata)
    )
    heights = {patch.get_label(): patch.get_data() for patch in ax.patches if hasattr(patch, "get_data")}
    for label, values in (
        ("model", adata.var[f"regnet_{'self_weight' if what == 'weight' else what}"].to_numpy()),
        ("random initialisation", adata.varm[f"regnet_initialised_{what}"].ravel()),
        ("random neighbours", adata.varm[f"regnet_rewired_{what}"].ravel()),
    ):
        values = values[np.isfinite(values)]
        np.testing.assert_allclose(heights[label].values.sum(), 1)
        expected, _ = np.histogram(values.astype(float), heights[label].edges)
        np.testing.assert_allclose(heights[label].values, expected / len(values))


def test_the_border_of_alignment_is_drawn(adata):
    ax = tr.pl.alignment(adata)
    (line,) = ax.lines
    assert line.get_xdata()[0] == 0.5
    assert line.get_label() == "shrinkage-like from 0.5"


def test_gate_shows_both_kinds_of_genes(adata):
    ax = tr.pl.gate(adata)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["regulators\n(6)", "other genes\n(24)"]
    medians = adata.var.groupby("is_regulator")["regnet_gate"].median()
    dots = [c.get_offsets()[0, 1] for c in ax.collections if type(c).__name__ == "PathCollection"]
    np.testing.assert_allclose(dots, [medians[True], medians[False]], rtol=1e-5)
    adata.var["is_regulator"] = np.arange(adata.n_vars) < 3
    dots = [c for c in tr.pl.gate(adata).collections if type(c).__name__ == "PathCollection"]
    np.testing.assert_allclose(dots[0].get_offsets()[:, 1], adata.var["regnet_gate"][:3], rtol=1e-5)


def test_latent_draws_the_stored_coordinates(adata):
    axes = tr.pl.latent(adata)
    alone = (adata.var["regnet_in_degree"] == 0).to_numpy()
    regulator = adata.var["is_regulator"].to_numpy()
    for panel, name in (("latent", "X_regnet_umap"), ("expression", "X_regnet_expression_umap")):
        for label, which in (
            ("regulator", regulator & ~alone), ("other gene", ~regulator & ~alone), ("no message", alone)
        ):  # fmt: skip
            if which.any():
                np.testing.assert_allclose(points(axes[panel], label), adata.varm[name][which], rtol=1e-6)


def test_uncertainty_counts_every_pair_and_marks_the_top(adata):
    ax = tr.pl.edge_uncertainty(adata, n_top=7)
    p, sd = adata.varp["regnet_prob"], adata.varp["regnet_std"]
    hexagons = next(c for c in ax.collections if type(c).__name__ == "PolyCollection")
    assert hexagons.get_array().sum() == p.nnz
    top = points(ax, "top 7")
    order = np.argsort(-p.data, kind="stable")[:7]
    np.testing.assert_allclose(top, np.column_stack([p.data[order], sd.data[order]]), rtol=1e-6)
    assert ax.get_ylabel() == "SD of the log-odds (delta method)"


def test_axes_are_used(adata):
    _, three = plt.subplots(1, 3)
    assert list(tr.pl.shrinkage(adata, ax=three).values()) == list(three)
    assert tr.pl.shrinkage(adata, panels="distribution", ax=three[0])["distribution"] is three[0]
    assert list(tr.pl.latent(adata, ax=three[:2]).values()) == list(three[:2])
    for name in ("alignment", "gate", "edge_uncertainty"):
        assert getattr(tr.pl, name)(adata, ax=three[0]) is three[0]
    with pytest.raises(ValueError, match="Expected `ax` to hold 3 axes, one for each panel, found 2"):
        tr.pl.shrinkage(adata, ax=three[:2])


def test_what_is_missing_is_named(adata):
    bare = tr.datasets.toy()
    with pytest.raises(KeyError, match=re.escape("Run `sctrellis.tl.shrinkage` first")):
        tr.pl.shrinkage(bare)
    with pytest.raises(KeyError, match=re.escape("Run `sctrellis.tl.shrinkage` first")):
        tr.pl.alignment(bare, "regnet")
    with pytest.raises(KeyError, match=re.escape("Run `sctrellis.tl.regnet` first.")):
        tr.pl.gate(bare)
    with pytest.raises(KeyError, match=re.escape("Run `sctrellis.tl.latent_map(adata, 'regnet')` first.")):
        tr.pl.latent(bare)
    with pytest.raises(KeyError, match="`sctrellis.tl.regnet` writes both"):
        tr.pl.edge_uncertainty(bare)
    with pytest.raises(ValueError, match="Expected `panels` to be one of"):
        tr.pl.shrinkage(adata, panels="age")
    adata.uns["x_shrinkage"] = adata.uns["regnet"]
    with pytest.raises(ValueError, match=re.escape("`adata.uns['x_shrinkage']` holds no self weights")):
        tr.pl.shrinkage(adata, "x")
