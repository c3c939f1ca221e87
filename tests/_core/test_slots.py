import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content
from scipy import sparse

from sctrellis import datasets
from sctrellis._core import slots

N_OBS, N_VARS = 30, 6


def _adata(**options):
    rng = np.random.default_rng(0)
    return ad.AnnData(
        rng.gamma(1.0, 1.0, (N_OBS, N_VARS)).astype(np.float32),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(N_OBS)]),
        var=pd.DataFrame({"is_regulator": np.arange(N_VARS) < 2}, index=[f"g{i}" for i in range(N_VARS)]),
        **options,
    )


def _mudata():
    atac = _adata()[:, :4].copy()
    atac.var_names = [f"peak{i}" for i in range(4)]
    with md.set_options(pull_on_update=False):
        return md.MuData({"rna": _adata(), "atac": atac})


# source and target


def test_target_of_an_anndata():
    adata = _adata()
    root, found = slots.target(adata)
    assert root is adata
    assert found is adata
    root, found = slots.target(adata, copy=True)
    assert root is found
    assert root is not adata
    root.X[:] = 0
    assert adata.X.any()


def test_target_of_a_mudata_is_the_modality():
    mdata = _mudata()
    root, found = slots.target(mdata, mod="rna")
    assert root is mdata
    assert found is mdata.mod["rna"]
    root, found = slots.target(mdata, mod="atac", copy=True)
    assert root is not mdata
    assert found is root.mod["atac"]
    assert found is not mdata.mod["atac"]


def test_target_copies_a_backed_file_into_memory(tmp_path):
    _adata().write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    root, found = slots.target(backed, copy=True)
    assert not root.isbacked
    assert backed.isbacked
    np.testing.assert_array_equal(found.X, _adata().X)


def test_target_errors():
    with pytest.raises(ValueError, match=r"`mod='rna'` names a modality of a MuData, but `adata` is an AnnData"):
        slots.target(_adata(), mod="rna")
    with pytest.raises(ValueError, match=r"`adata` is a MuData: choose a modality with `mod=`, one of 'rna', 'atac'"):
        slots.target(_mudata())
    with pytest.raises(KeyError, match=r"`mod`: 'adt' not found in `mdata.mod`. Available: 'rna', 'atac'"):
        slots.target(_mudata(), mod="adt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pd.DataFrame(np.ones((2, 2))), r"found DataFrame\. Wrap it as `anndata\.AnnData\(df\)`, cells x genes"),
        (np.ones((2, 2)), r"found ndarray\. Wrap it"),
        ("x.h5ad", r"Expected `adata` to be an AnnData \(or a MuData with `mod=`\), found str\.$"),
        (None, r"found NoneType\.$"),
    ],
)
def test_target_wants_an_anndata(value, message):
    with pytest.raises(TypeError, match=message):
        slots.target(value)


# reading


def test_read_matrix_reads_x_or_the_layer():
    adata = _adata(layers={"half": np.full((N_OBS, N_VARS), 0.5) * np.arange(N_OBS)[:, None] / N_OBS})
    np.testing.assert_array_equal(slots.read_matrix(adata).in_memory(), adata.X)
    np.testing.assert_array_equal(slots.read_matrix(adata, "half").in_memory(), adata.layers["half"].astype("f4"))
    genes = np.array([False, True, True, False, False, True])
    np.testing.assert_array_equal(slots.read_matrix(adata, genes=genes).in_memory(), adata.X[:, genes])


def test_read_matrix_checks_only_the_genes_it_is_asked_for():
    adata = _adata()
    adata.X[:, 3] = np.nan
    assert slots.read_matrix(adata, genes=np.array([0, 1, 2])).shape == (N_OBS, 3)
    with pytest.raises(ValueError, match=r"`adata.X` has 30 NaN or infinite values in 1 genes \('g3'\)"):
        slots.read_matrix(adata, genes=np.array([2, 3]))


def test_read_matrix_errors():
    adata = _adata(layers={"log": np.ones((N_OBS, N_VARS))})
    with pytest.raises(KeyError, match=r"`layer`: 'counts' not found in `adata.layers`. Available: 'log'"):
        slots.read_matrix(adata, "counts")
    adata.layers["text"] = np.full((N_OBS, N_VARS), "a", dtype=object)
    with pytest.raises(TypeError, match=r"`adata.layers\['text'\]` to hold numbers, found dtype object.*astype"):
        slots.read_matrix(adata, "text")
    adata.layers["complex"] = np.ones((N_OBS, N_VARS), complex)
    with pytest.raises(TypeError, match=r"found dtype complex128"):
        slots.read_matrix(adata, "complex")
    adata.X = None
    with pytest.raises(ValueError, match=r"`adata.X` is None\. Name a layer with `layer=`, one of 'log', 'text'"):
        slots.read_matrix(adata)
    with pytest.raises(ValueError, match="at least 10 cells, found 4"):
        slots.read_matrix(_adata()[:4])
    with pytest.raises(ValueError, match="at least 2 genes, found 1"):
        slots.read_matrix(_adata()[:, :1])


def test_read_regulators():
    adata = _adata()
    adata.var["mine"] = pd.array([True, False, False, True, False, False], dtype="boolean")
    np.testing.assert_array_equal(np.flatnonzero(slots.read_regulators(adata)), [0, 1])
    np.testing.assert_array_equal(np.flatnonzero(slots.read_regulators(adata, "mine")), [0, 3])
    assert slots.read_regulators(adata, "all").all()
    for names in (["g5", "g2"], ("g5", "g2", "g5"), np.array(["g2", "g5"]), pd.Index(["g2", "g5"])):
        mask = slots.read_regulators(adata, names)
        assert mask.dtype == bool
        np.testing.assert_array_equal(np.flatnonzero(mask), [2, 5])


def test_read_regulators_warns_of_names_that_are_not_there():
    with pytest.warns(UserWarning, match=r"2 of 3 `regulators` are not in `adata.var_names` \('z', 'y'\)"):
        mask = slots.read_regulators(_adata(), ["z", "g1", "y", "z"])
    np.testing.assert_array_equal(np.flatnonzero(mask), [1])


def test_read_regulators_errors():
    adata = _adata()
    adata.var["none"], adata.var["number"] = False, 1.0
    adata.var["unknown"] = pd.array([True, None, False, True, False, False], dtype="boolean")
    with pytest.raises(KeyError, match=r"`regulators`: 'tf' not found in `adata.var`.*sctrellis.pp.regulators"):
        slots.read_regulators(adata, "tf")
    with pytest.raises(KeyError, match=r"'is_regulator' not found in `adata.var`. Available: none\. Run"):
        slots.read_regulators(ad.AnnData(np.ones((3, 2), np.float32)))
    with pytest.raises(ValueError, match=r"`adata.var\['none'\]` is False for all 6 genes: no gene may regulate"):
        slots.read_regulators(adata, "none")
    for column in ("number", "unknown"):
        with pytest.raises(TypeError, match=rf"`adata.var\['{column}'\]` to be Boolean without missing values"):
            slots.read_regulators(adata, column)
    with pytest.raises(ValueError, match=r"None of the 2 names in `regulators` is in `adata.var_names`"):
        slots.read_regulators(adata, ["x", "y"])
    with pytest.raises(ValueError, match=r"`regulators` is empty"):
        slots.read_regulators(adata, [])


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_read_network_is_a_sorted_copy(form):
    dense = np.zeros((N_VARS, N_VARS))
    dense[0, [4, 2]], dense[3, 1] = [0.5, 1.0], -1.0
    adata = _adata(varp={"known": form(dense)})
    network = slots.read_network(adata, "known")
    assert isinstance(network, sparse.csr_matrix)
    assert network.dtype == np.float32
    assert network.has_sorted_indices
    np.testing.assert_array_equal(network.toarray(), dense)
    network.data[:] = 9
    np.testing.assert_array_equal(adata.varp["known"].toarray(), dense)


def test_read_network_keeps_explicit_zeros():
    stored = sparse.csr_matrix(([0.0, 0.0, 2.0], [3, 1, 2], [0, 2, 3, 3, 3, 3, 3]), shape=(N_VARS, N_VARS))
    network = slots.read_network(_adata(varp={"scores": stored}), "scores")
    np.testing.assert_array_equal(network.indices, [1, 3, 2])
    np.testing.assert_array_equal(network.data, [0, 0, 2])


def test_read_network_errors():
    with pytest.raises(KeyError, match=r"`network`: 'known' not found in `adata.varp`. Available: none.*`pp.network`"):
        slots.read_network(_adata(), "known")
    with pytest.raises(KeyError, match=r"`keys`: 'x' not found in `adata.varp`. Available: 'a'"):
        slots.read_network(_adata(varp={"a": np.eye(N_VARS)}), "x", argument="keys")


def test_read_folds():
    folds = sparse.csr_matrix(np.triu(np.full((N_VARS, N_VARS), 2)))
    adata = _adata(varp={"known_fold": folds})
    found = slots.read_folds(adata, "known")
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found.toarray(), folds.toarray())
    assert slots.read_folds(adata, "other") is None


def test_read_embedding():
    values = np.random.default_rng(0).normal(size=(N_VARS, 3))
    values[2] = np.nan
    frame = pd.DataFrame(values, index=_adata().var_names, columns=["a", "b", "c"])
    adata = _adata(varm={"array": values, "frame": frame, "sparse": sparse.csr_matrix(np.nan_to_num(values))})
    for key in ("array", "frame"):
        found = slots.read_embedding(adata, key)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))
    np.testing.assert_array_equal(slots.read_embedding(adata, "sparse"), np.nan_to_num(values).astype(np.float32))


def test_read_embedding_errors():
    infinite = np.ones((N_VARS, 2))
    infinite[1, 1] = np.inf
    adata = _adata(
        varm={
            "infinite": infinite,
            "nothing": np.full((N_VARS, 2), np.nan),
            "narrow": np.zeros((N_VARS, 0)),
            "cube": np.zeros((N_VARS, 2, 2)),
            "text": pd.DataFrame({"a": ["x"] * N_VARS}, index=_adata().var_names),
        }
    )
    with pytest.raises(KeyError, match=r"`embedding`: 'emb' not found in `adata.varm`.*`sctrellis.pp.gene_embedding`"):
        slots.read_embedding(adata, "emb")
    with pytest.raises(ValueError, match=r"`adata.varm\['infinite'\]` has infinite values"):
        slots.read_embedding(adata, "infinite")
    with pytest.raises(ValueError, match=r"`adata.varm\['nothing'\]` is NaN for every gene"):
        slots.read_embedding(adata, "nothing")
    for key in ("narrow", "cube"):
        with pytest.raises(
            ValueError, match=rf"`adata.varm\['{key}'\]` to have shape \(n_vars, d\) with d >= 1, found"
        ):
            slots.read_embedding(adata, key)
    with pytest.raises(TypeError, match=r"Expected `adata.varm\['text'\]` to hold numbers"):
        slots.read_embedding(adata, "text")


# writing


@pytest.mark.parametrize(
    ("rows", "columns"), [([0, 2], [0, 1, 2, 5]), ([1, 3, 4], [0, 2]), ([5], [5]), (range(6), range(6))]
)
def test_network_csr_equals_brute_force(rows, columns):
    rows, columns = np.array(rows), np.array(columns)
    scores = np.random.default_rng(0).integers(-1, 2, (len(rows), len(columns))).astype(float)  # zeros too
    network = slots.network_csr(scores, rows, columns, N_VARS)
    expected = {(int(r), int(c)): scores[i, j] for i, r in enumerate(rows) for j, c in enumerate(columns) if r != c}
    coo = network.tocoo()
    found = dict(zip(zip(coo.row.tolist(), coo.col.tolist(), strict=True), coo.data.tolist(), strict=True))
    assert found == expected
    assert network.nnz == len(expected)
    assert (network.shape, network.dtype) == ((N_VARS, N_VARS), np.float32)
    assert network.has_canonical_format


def test_write_names_and_fills_every_slot():
    adata = _adata()
    dense = np.eye(N_VARS)[::-1]
    folds = sparse.csr_matrix(np.eye(N_VARS, dtype=np.int8))
    written = slots.write(
        adata,
        var={"score": np.arange(N_VARS), "one": 1.0},
        varp={"net": dense, "net_fold": folds},
        varm={"emb": np.ones((N_VARS, 2))},
        uns={"net": {"schema": 1}},
    )
    assert written == ["var['score']", "var['one']", "varp['net']", "varp['net_fold']", "varm['emb']", "uns['net']"]
    assert isinstance(adata.varp["net"], sparse.csr_matrix)
    assert adata.varp["net"].dtype == np.float32
    assert adata.varp["net_fold"].dtype == np.int8
    np.testing.assert_array_equal(adata.varp["net"].toarray(), dense)
    np.testing.assert_array_equal(adata.var["score"], np.arange(N_VARS))


def test_write_keeps_explicit_zeros_and_the_callers_matrix():
    given = sparse.csr_matrix(([0.0, 2.0], [3, 1], [0, 2, 2, 2, 2, 2, 2]), shape=(N_VARS, N_VARS))
    adata = _adata()
    slots.write(adata, varp={"net": given})
    assert adata.varp["net"].nnz == 2
    assert given.dtype == np.float64
    np.testing.assert_array_equal(given.indices, [3, 1])


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        ("varp", sparse.csr_matrix((N_VARS, N_VARS - 1))),
        ("varp", np.eye(N_VARS + 1)),
        ("varm", np.ones((N_VARS - 1, 2))),
        ("var", np.ones(N_VARS + 1)),
    ],
    ids=["not_square", "too_large", "varm", "var"],
)
@pytest.mark.parametrize("view", [False, True])
def test_write_is_all_or_nothing(slot, value, view):
    adata = _adata()[:, :] if view else _adata()
    before = content(adata)
    whole = {
        "var": {"a": np.ones(N_VARS)},
        "varp": {"a": np.eye(N_VARS)},
        "varm": {"a": np.ones((N_VARS, 1))},
        "uns": {"a": 1},
    }
    whole[slot]["b"] = value
    with pytest.raises(ValueError, match=r"of shape \(\d.*cannot be written for 6 genes"):
        slots.write(adata, **whole)
    assert content(adata) == before
    assert adata.is_view == view


@pytest.mark.parametrize("index", [np.s_[:20], np.s_[:, :4], np.s_[5:25, 1:5]], ids=["cells", "genes", "both"])
def test_write_to_a_view_makes_it_an_object_of_its_own(index):
    parent = _adata()
    before = content(parent)
    view = parent[index]
    n_vars = view.n_vars
    slots.write(view, varp={"net": np.eye(n_vars)}, uns={"net": 1})  # and no ImplicitModificationWarning
    assert not view.is_view
    assert view.varp["net"].shape == (n_vars, n_vars)
    assert content(parent) == before


@pytest.mark.parametrize("index", [None, np.s_[:20], np.s_[:, :4]], ids=["whole", "cells", "genes"])
def test_write_to_a_backed_file_changes_no_file(tmp_path, index):
    path = tmp_path / "x.h5ad"
    _adata().write_h5ad(path)
    file = path.read_bytes()
    backed = ad.read_h5ad(path, backed="r")
    target = backed if index is None else backed[index]
    n_vars = target.n_vars
    slots.write(target, varp={"net": np.eye(n_vars)})
    assert target.varp["net"].shape == (n_vars, n_vars)
    assert target.isbacked == (index is None)
    backed.file.close()
    assert path.read_bytes() == file


# MuData as a whole


@pytest.fixture
def mdata():
    return datasets.simulate_multiome(20, 240, 8, n_targets=2)


def test_write_to_a_mudata(mdata):
    written = slots.write(mdata, obs={"depth": np.arange(20)}, varp={"net": sparse.eye(248)}, uns={"run": {"a": 1}})
    assert written == ["obs['depth']", "varp['net']", "uns['run']"]
    assert mdata.obs["depth"].tolist() == list(range(20))
    assert mdata.varp["net"].format == "csr"
    assert mdata.varp["net"].dtype == np.float32


def test_write_to_a_view_of_a_mudata(mdata):
    before = content(mdata)
    view = mdata[:10]
    slots.write(view, obs={"depth": np.arange(10)})
    assert not view.is_view
    assert view.obs["depth"].tolist() == list(range(10))
    assert content(mdata) == before


def test_nothing_is_written_to_cells_of_another_number(mdata):
    before = content(mdata)
    with pytest.raises(ValueError, match=r"`obs\['depth'\]` of shape \(5,\) cannot be written for 20 cells"):
        slots.write(mdata, uns={"run": {}}, obs={"depth": np.arange(5)})
    assert content(mdata) == before


def test_read_obs_looks_in_the_modalities_too(mdata):
    mdata["rna"].obs["cell_group"] = "other"
    mdata["atac"].obs["sample"] = np.arange(20)
    assert slots.read_obs(mdata, "cell_group").equals(mdata.obs["cell_group"])
    assert slots.read_obs(mdata, "sample").tolist() == list(range(20))
    assert slots.read_obs(mdata["atac"], "sample").index.equals(mdata.obs_names)
    with pytest.raises(
        KeyError, match="`groupby`: 'batch' not found in `mdata.obs`. Available: 'cell_group'.*'sample'"
    ):
        slots.read_obs(mdata, "batch")


def test_read_cis_gives_back_distances_of_genes_and_peaks(mdata):
    links = slots.read_cis(mdata)
    assert links.shape == (8, 240)
    whole = mdata.varp["cis"]
    genes, peaks = (
        mdata.var_names.get_indexer(mdata["rna"].var_names),
        mdata.var_names.get_indexer(mdata["atac"].var_names),
    )
    stored = whole[genes][:, peaks].toarray()
    row = np.repeat(np.arange(8), np.diff(links.indptr))
    assert (stored != 0).sum() == links.nnz == whole.nnz
    np.testing.assert_array_equal(stored[row, links.indices], links.data + np.where(links.data < 0, -1, 1))


def test_read_cis_of_fewer_variables(mdata):
    links = slots.read_cis(mdata).toarray()
    kept = mdata.var_names[::3]
    part = mdata[:, kept].copy()
    genes, peaks = mdata["rna"].var_names.isin(kept), mdata["atac"].var_names.isin(kept)
    np.testing.assert_array_equal(slots.read_cis(part).toarray(), links[genes][:, peaks])
    np.testing.assert_array_equal(slots.read_cis(mdata[:, kept]).toarray(), links[genes][:, peaks])


def test_read_cis_of_other_modalities_in_another_order(mdata):
    with md.set_options(pull_on_update=False):
        other = md.MuData({"peaks": mdata["atac"], "genes": mdata["rna"]})
    distances = slots.read_cis(mdata)
    slots.write(other, varp={"near": slots.cis_network(other, distances, rna="genes", atac="peaks")})
    found = slots.read_cis(other, "near", rna="genes", atac="peaks")
    np.testing.assert_array_equal(found.indices, distances.indices)
    np.testing.assert_array_equal(found.data, distances.data)


def test_what_is_no_multiome(mdata):
    with pytest.raises(TypeError, match=r"found AnnData. Build one with `sctrellis.pp.multiome\(rna, atac\)`"):
        slots.read_cis(mdata["rna"])
    with pytest.raises(KeyError, match="`atac`: 'peaks' not found in `mdata.mod`. Available: 'rna', 'atac'"):
        slots.read_cis(mdata, atac="peaks")
    with pytest.raises(
        KeyError, match=r"'near' not found in `mdata.varp`.*Run `sctrellis.pp.cis_links\(mdata\)` first"
    ):
        slots.read_cis(mdata, "near")
    mdata.mod["atac"] = mdata["atac"][:15].copy()
    with pytest.raises(ValueError, match="15 and 20 cells, 15 shared"):
        slots.read_cis(mdata)


def test_variables_that_changed_are_noticed(mdata):
    mdata.mod["atac"] = mdata["atac"][:, ::-1].copy()
    with pytest.raises(ValueError, match=r"`mdata\['atac'\]` have changed.*mdata.update"):
        slots.read_cis(mdata)


def test_scores_rise_with_the_belief_in_an_edge():
    adata = _adata()
    signed = sparse.csr_matrix(([-2.0, 1.0, 0.0], ([0, 0, 1], [3, 4, 5])), shape=(adata.n_vars,) * 2)
    adata.varp["effect"], adata.varp["logit"] = signed, signed
    adata.uns["logit"] = {"score_scale": "log_odds"}
    effect, logit = slots.read_scores(adata, "effect"), slots.read_scores(adata, "logit")
    assert effect.data.tolist() == [2, 1, 0]
    assert np.argsort(logit.data).tolist() == [0, 2, 1]
    assert logit.data == pytest.approx(1 / (1 + np.exp([2.0, -1.0, 0.0])))
    pairs = np.array([0, 1, 2]), np.array([3, 5, 3])
    assert slots.values_at(logit, *pairs) == pytest.approx([logit.data[0], 0.5, np.nan], nan_ok=True)


def test_high_log_odds_stay_apart():
    adata = _adata()
    adata.varp["logit"] = sparse.csr_matrix(([20.0, 21.0], ([0, 0], [3, 4])), shape=(adata.n_vars,) * 2)
    adata.uns["logit"] = {"score_scale": "log_odds"}
    scores = slots.values_at(slots.read_scores(adata, "logit"), np.array([0, 0]), np.array([3, 4]))
    assert scores[1] > scores[0]
