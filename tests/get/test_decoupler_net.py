import anndata
import numpy as np
import pytest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(np.ones((12, 30), np.float32))
    adata.var_names = [f"G{i:02d}" for i in rng.permutation(30)]
    scores = np.round(rng.normal(size=(5, 30)), 1).astype(np.float32)
    slots.write(adata, varp={"net": slots.network_csr(scores, np.array([2, 3, 11, 20, 28]), np.arange(30), 30)})
    return adata


@pytest.mark.parametrize("n", [1, 6, 100, None])
def test_strongest_targets_of_each_regulator(adata, n):
    net = tr.get.decoupler_net(adata, "net", n_targets=n)
    table = tr.get.edges(adata, "net")
    table = table[table["score"] > 0]
    assert list(net.columns) == ["source", "target", "weight"]
    assert list(dict.fromkeys(net["source"])) == sorted(adata.var_names[[2, 3, 11, 20, 28]])
    for source, own in net.groupby("source"):
        expected = table[table["source"] == source].head(n or len(table))
        assert own["target"].tolist() == expected["target"].tolist()
        assert own["weight"].tolist() == expected["weight"].tolist()


def test_what_decoupler_asks_of_a_net(adata):
    net = tr.get.decoupler_net(adata, "net", n_targets=10)
    assert not net.duplicated(["source", "target"]).any()
    assert (net["weight"] != 0).all()
    assert (net["weight"] < 0).any()
    assert net["weight"].dtype.kind == "f"
    assert net["source"].map(type).eq(str).all()
    assert net["target"].map(type).eq(str).all()
    # Its methods pivot to targets x sources and fill with 0: that must be the network again.
    pivot = net.pivot(columns="source", index="target", values="weight").fillna(0)
    whole = np.zeros((30, 30), np.float32)
    whole[np.ix_(adata.var_names.get_indexer(pivot.columns), adata.var_names.get_indexer(pivot.index))] = pivot.T
    kept = whole != 0
    np.testing.assert_array_equal(whole[kept], adata.varp["net"].toarray()[kept])


def test_self_edges_and_known_non_edges_are_left_out():
    adata = anndata.AnnData(np.ones((12, 3), np.float32))
    adata.var_names = ["A", "B", "C"]
    labels = sparse.csr_matrix(np.array([[1, -1, 0.5], [0, 0, 0], [1, 0, 0]], np.float32))
    slots.write(adata, varp={"net": labels}, uns={"net": {"schema": 1, "method": "network"}})
    net = tr.get.decoupler_net(adata, "net")
    assert net.to_numpy().tolist() == [["A", "C", 0.5], ["C", "A", 1.0]]


def test_filters_come_before_the_choice(adata):
    targets = list(adata.var_names[:15])
    net = tr.get.decoupler_net(adata, "net", n_targets=2, targets=targets, min_score=0.3)
    table = tr.get.edges(adata, "net", targets=targets, min_score=0.3)
    expected = table[table.groupby("source").cumcount() < 2]
    assert set(zip(net["source"], net["target"], strict=True)) == set(
        zip(expected["source"], expected["target"], strict=True)
    )


def test_bad_arguments(adata):
    with pytest.raises(ValueError, match="`n_targets` to be at least 1, found 0"):
        tr.get.decoupler_net(adata, "net", n_targets=0)
    with pytest.raises(KeyError, match="'other' not found in `adata.varp`"):
        tr.get.decoupler_net(adata, "other")


def test_log_odds_below_zero_are_no_repression(adata):
    adata.uns["net"] = {"schema": 1, "method": "regnet", "score_scale": "log_odds"}
    net = tr.get.decoupler_net(adata, "net")
    assert (adata.varp["net"].data < 0).any()
    assert ((net["weight"] > 0) & (net["weight"] < 1)).all()
