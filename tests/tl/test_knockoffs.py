"""`tl.knockoffs` and `tl.partial_test`: what they read and write; the numbers are tested in `metrics`."""

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content, digest
from scipy import sparse

import sctrellis as tr
from sctrellis import metrics

P = 8
FAST = {"n_draws": 2}


def world(n=200, seed=0, *, batch=False):
    """Return cells in which gene ``t{i}`` follows regulator ``r{i}``, one gene and one regulator being constant."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, size=(n, P))
    y = 1.5 * x + rng.gamma(2.0, size=(n, P))
    cells = np.column_stack([x, y, np.ones((n, 2))]).astype(np.float32)
    names = [f"{kind}{i}" for kind in "rt" for i in range(P)] + ["r_constant", "t_constant"]
    adata = ad.AnnData(cells, var=pd.DataFrame({"is_regulator": [n[0] == "r" for n in names]}, index=names))
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["batch"] = pd.Categorical(rng.choice(["a", "b", "c"], n))
    adata.obs["cycle"] = rng.random(n)
    if batch:
        adata.X[:, : 2 * P] += np.float32(4) * (adata.obs["batch"] == "a").to_numpy()[:, None]
    return adata


CONSTANT = pytest.mark.filterwarnings("ignore:2 of 18 genes are constant")
TRUTH = {(f"r{i}", f"t{i}") for i in range(P)}


def selected(adata, key, q):
    edges = tr.get.edges(adata, key)
    return set(edges[edges["qval"] <= q][["source", "target"]].itertuples(index=False, name=None))


@CONSTANT
@pytest.mark.parametrize("tool", ["knockoffs", "partial_test"])
def test_planted_edges_are_selected(tool):
    adata = world()
    q, options = (0.5, {"q": 0.5, **FAST}) if tool == "knockoffs" else (0.1, {})
    assert getattr(tr.tl, tool)(adata, **options) is None
    assert selected(adata, tool, q) >= TRUTH
    assert len(selected(adata, tool, q)) <= 16
    edges = tr.get.edges(adata, tool)
    assert set(edges["source"]) == {f"r{i}" for i in range(P)}  # none of the constant genes
    assert set(edges["target"]) == {f"t{i}" for i in range(P)}
    assert (edges["weight"] > 0).sum() >= P


@CONSTANT
def test_the_network_is_that_of_the_arrays():
    adata = world()
    x, y = adata.X[:, :P], adata.X[:, P : 2 * P]
    for tool, options, slot in (
        ("knockoffs", {"n_draws": 2, "seed": 5, "generator": "gaussian", "spread": "maxent"}, "statistic"),
        ("partial_test", {"robust": True}, "partial"),
    ):
        getattr(tr.tl, tool)(adata, key_added="mine", **options)
        expected = getattr(metrics, tool)(x, y, **options)
        found = adata.varp["mine"].toarray()[:P, P : 2 * P]
        np.testing.assert_allclose(found, getattr(expected, slot), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            adata.varp["mine_qval"].toarray()[:P, P : 2 * P], expected.qvalue, rtol=1e-6, atol=1e-6
        )
        assert adata.varp["mine"].nnz == adata.varp["mine_qval"].nnz == P * P


@CONSTANT
@pytest.mark.parametrize("tool", ["knockoffs", "partial_test"])
def test_regulators_may_be_targets(tool):
    adata = world()
    options = FAST if tool == "knockoffs" else {}
    getattr(tr.tl, tool)(adata, targets="all", **options)
    network = adata.varp[tool]
    assert network.nnz == P * (2 * P - 1)
    assert not network.diagonal().any()
    getattr(tr.tl, tool)(adata, targets=["t1", "r2"], **options)
    assert set(tr.get.edges(adata, tool)["target"]) == {"t1", "r2"}
    getattr(tr.tl, tool)(adata, regulators=["r0", "r1"], **options)
    assert set(tr.get.edges(adata, tool)["source"]) == {"r0", "r1"}
    assert {"r2", "t2"} <= set(tr.get.edges(adata, tool)["target"])


@CONSTANT
def test_the_record_says_what_was_selected():
    adata = world()
    tr.tl.knockoffs(adata, targets="all", q=0.5, **FAST)
    record = tr.get.record(adata, "knockoffs")
    fit = record["fit"]
    assert fit["n_pairs"] == P * P
    assert fit["n_pairs_regulators"] == P * (P - 1)
    between = {f"r{i}" for i in range(P)}
    chosen = selected(adata, "knockoffs", 0.5)
    assert fit["n_selected"] == sum(target not in between for _, target in chosen)
    assert fit["n_selected_regulators"] == sum(target in between for _, target in chosen)
    x, y = adata.X[:, :P], adata.X[:, P : 2 * P]
    alone = metrics.knockoffs(x, y, n_draws=1, seed=0, q=0.5).qvalue <= 0.5
    assert len(fit["n_selected_by_draw"]) == 2
    assert fit["n_selected_by_draw"][0] == alone.sum()
    assert 0 <= fit["shrinkage"] <= 1
    assert 0 < fit["full_swap_p"] <= 1
    assert f"{fit['n_selected']} of 64 pairs are selected at a false discovery rate of 0.5" in record["words"]
    low, high = min(fit["n_selected_by_draw"]), max(fit["n_selected_by_draw"])
    assert f"Single draws select from {low} to {high}." in record["words"]
    assert "may share a target rather than regulate each other" in record["words"]
    assert "hidden causes" in record["words"]
    tr.tl.knockoffs(adata, q=0.01, **FAST)
    assert "Nothing can be selected where fewer than 250 pairs" in tr.get.record(adata, "knockoffs")["words"]
    tr.tl.knockoffs(adata, family="target", **FAST)
    record = tr.get.record(adata, "knockoffs")
    assert "fewer than 25 regulators" in record["words"]
    assert record["fit"]["n_selected"] == 0
    tr.tl.knockoffs(adata, family="target", n_draws=1)
    assert "fewer than 10 regulators" in tr.get.record(adata, "knockoffs")["words"]


@CONSTANT
@pytest.mark.parametrize("tool", ["knockoffs", "partial_test"])
def test_a_known_batch_is_taken_off(tool):
    adata = world(400, batch=True)
    q, options = (0.5, {"q": 0.5, **FAST}) if tool == "knockoffs" else (0.1, {})
    getattr(tr.tl, tool)(adata, covariates=["batch", "cycle"], **options)
    assert selected(adata, tool, q) >= TRUTH
    assert len(selected(adata, tool, q)) <= 16
    known = np.column_stack([pd.get_dummies(adata.obs["batch"]).to_numpy(float)[:, 1:], adata.obs["cycle"]])
    x, y = adata.X[:, :P], adata.X[:, P : 2 * P]
    expected = getattr(metrics, tool)(x, y, covariates=known, **options)
    np.testing.assert_allclose(
        adata.varp[f"{tool}_qval"].toarray()[:P, P : 2 * P], expected.qvalue, rtol=1e-5, atol=1e-6
    )


@CONSTANT
def test_least_squares_keeps_the_manners_of_a_tool(tmp_path):
    """It draws no numbers, so it is not on the list of the contract tests."""
    adata = world()
    before = content(adata)
    returned = tr.tl.partial_test(adata, copy=True)
    assert content(adata) == before
    tr.tl.partial_test(adata)
    assert content(adata) == content(returned)
    assert set(content(adata)) - set(before) == {"varp/partial_test", "varp/partial_test_qval", "uns/partial_test"}
    assert {k: v for k, v in content(adata).items() if k in before} == before
    held = adata.copy()
    held.X = sparse.csc_matrix(held.X)
    held.layers["other"], held.X = held.X, sparse.csr_matrix(held.shape, dtype=np.float32)
    tr.tl.partial_test(held, layer="other")
    assert digest(held.varp["partial_test"]) == digest(adata.varp["partial_test"])
    for form in ("h5ad", "zarr"):
        getattr(adata, f"write_{form}")(tmp_path / form)
        back = getattr(ad, f"read_{form}")(tmp_path / form)
        assert digest(tr.get.record(back, "partial_test")) == digest(tr.get.record(adata, "partial_test"))
        np.testing.assert_array_equal(back.varp["partial_test_qval"].data, adata.varp["partial_test_qval"].data)
    mdata = md.MuData({"rna": world()})
    tr.tl.partial_test(mdata, mod="rna")
    assert digest(mdata["rna"].varp["partial_test"]) == digest(adata.varp["partial_test"])


def copies(adata):
    adata.X[:, 1] = adata.X[:, 0]


@CONSTANT
def test_copies_are_named():
    adata = world()
    copies(adata)
    with pytest.warns(UserWarning, match="1 pairs of regulators are copies of each other .as 'r0' and 'r1'"):
        tr.tl.knockoffs(adata, q=0.5, **FAST)
    found = selected(adata, "knockoffs", 0.5)
    assert TRUTH - {("r0", "t0"), ("r1", "t1")} <= found
    before = content(adata)
    with (
        pytest.warns(UserWarning, match="are copies"),
        pytest.raises(ValueError, match="2 of the 8 regulators follow from each other"),
    ):
        tr.tl.partial_test(adata)
    assert content(adata) == before


@CONSTANT
def test_fewer_cells_than_regulators():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.gamma(2.0, size=(20, 40)).astype(np.float32))
    regulators = [str(i) for i in range(30)]
    with pytest.warns(
        UserWarning, match=r"fewer cells \(20\) than regulators \(30\): correlations are shrunk strongly"
    ):
        tr.tl.knockoffs(adata, regulators=regulators, **FAST)
    assert tr.get.record(adata, "knockoffs")["fit"]["shrinkage"] > 0.3
    with pytest.raises(ValueError, match="more than 31 cells for 30 regulators, found 20. Use `knockoffs`"):
        tr.tl.partial_test(adata, regulators=regulators)


def missing_batch(adata):
    adata.obs["batch"] = adata.obs["batch"].astype(object)
    adata.obs.iloc[3, 0] = None


def constant_regulators(adata):
    adata.X[:, 1:P] = 1


def infinite_cycle(adata):
    adata.obs["cycle"] = np.where(np.arange(adata.n_obs) == 4, np.inf, adata.obs["cycle"])


def names_as_covariate(adata):
    adata.obs["batch"] = adata.obs_names.to_numpy()


@pytest.mark.filterwarnings("ignore:.*genes are constant")
@pytest.mark.parametrize("tool", ["knockoffs", "partial_test"])
@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (constant_regulators, {}, ValueError, "Only 1 of the 9 `regulators` vary over the cells: at least 2 must"),
        (None, {"targets": ["t_constant"]}, ValueError, "Only 0 of the 1 `targets` vary"),
        (None, {"targets": ["t1", "x"]}, ValueError, "1 of 2 `targets` are not in `adata.var_names`"),
        (None, {"targets": []}, ValueError, "`targets` to name at least one gene"),
        (None, {"regulators": "all"}, ValueError, "no target is left: pass `targets='all'`"),
        (None, {"regulators": "absent"}, KeyError, "`regulators`: 'absent' not found in `adata.var`"),
        (None, {"covariates": "absent"}, KeyError, "`covariates`: 'absent' not found in `adata.obs`"),
        (None, {"covariates": []}, ValueError, "`covariates`: none has one value"),
        (missing_batch, {"covariates": "batch"}, ValueError, r"`adata.obs\['batch'\]` has 1 missing values"),
        (infinite_cycle, {"covariates": "cycle"}, ValueError, r"`adata.obs\['cycle'\]` has infinite values"),
        (names_as_covariate, {"covariates": "batch"}, ValueError, "199 columns for 200 cells: too many"),
        (None, {"layer": "absent"}, KeyError, "`layer|Layer"),
        (None, {"key_added": "a/b"}, ValueError, "`key_added` to be a non-empty name"),
        (None, {"mod": "rna"}, ValueError, "`mod='rna'` names a modality"),
    ],
)
def test_bad_input(tool, change, options, error, message):
    adata = world()
    if change is not None:
        change(adata)
    before = content(adata)
    with pytest.raises(error, match=message):
        getattr(tr.tl, tool)(adata, **options)
    assert content(adata) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0}, r"`q` to lie in \(0, 1\), found 0"),
        ({"q": 1.5}, r"`q` to lie in \(0, 1\), found 1.5"),
        ({"n_draws": 0}, "`n_draws` to be at least 1, found 0"),
        ({"statistic": "ridge"}, "`statistic` to be one of 'lasso'; found 'ridge'"),
        ({"family": "regulator"}, "`family` to be one of 'network', 'target'; found 'regulator'"),
        ({"generator": "deep"}, "`generator` to be one of 'copula', 'gaussian', 'mixture'"),
        ({"spread": "equal"}, "`spread` to be one of 'mvr', 'maxent'"),
        ({"n_jobs": 0}, "`n_jobs` to be -1"),
        ({"seed": -1}, "`seed` to be at least 0"),
    ],
)
def test_bad_options(options, message):
    adata = world()
    before = content(adata)
    with pytest.raises(ValueError, match=message):
        tr.tl.knockoffs(adata, **options)
    assert content(adata) == before
