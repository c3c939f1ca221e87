"""pp.split_edges: folds partition the universe, nothing unseen is trained on, and draws depend on names only."""

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import record, universe
from sctrellis.pp._split import CLASSES, FOLDS, SCHEMES, SS, SU, TEST, TRAIN, US, UU, VALIDATION

UNIVERSES = ("beeline_tf", "beeline_all", "listed")


def make(n_regulators=12, n_vars=60, density=0.3, seed=0, names=None):
    """Return an AnnData with a random network in which every regulator has an edge; regulators may be targets."""
    rng = np.random.default_rng(seed)
    network = np.zeros((n_vars, n_vars), np.float32)
    network[:n_regulators] = rng.random((n_regulators, n_vars)) < density * rng.uniform(0.3, 1.7, (n_regulators, 1))
    network[np.arange(n_regulators), n_regulators + np.arange(n_regulators)] = 1
    np.fill_diagonal(network, 0)
    var = pd.DataFrame({"is_regulator": np.arange(n_vars) < n_regulators + 3})
    var.index = names if names is not None else [f"g{i}" for i in range(n_vars)]
    adata = ad.AnnData(np.ones((2, n_vars), np.float32), var=var)
    adata.varp["network"] = sparse.csr_matrix(network)
    return adata


def split(adata, **options):
    tr.pp.split_edges(adata, **options)
    folds = adata.varp["network_fold"].toarray()
    classes = adata.varp["network_class"].toarray() if "network_class" in adata.varp else None
    return folds, classes


def candidates(adata, mode="beeline_tf"):
    return universe.pairs(adata.varp["network"], adata.var["is_regulator"].to_numpy(), mode).toarray()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", UNIVERSES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_candidate_is_in_one_fold_or_counted_as_crossing(scheme, mode, seed):
    adata = make()
    folds, _ = split(adata, scheme=scheme, universe=mode, seed=seed)
    inside, positive = candidates(adata, mode), adata.varp["network"].toarray() > 0
    assert set(np.unique(folds)) == {0, 1, 2, 3}
    assert not folds[~inside].any()
    counts = record.read(adata, "network_fold")["counts"]
    assert counts["universe"] == inside.sum()
    assert counts["crossing"] == (inside & (folds == 0)).sum()
    assert counts["crossing_edges"] == (positive & (folds == 0)).sum()
    for name, code in FOLDS.items():
        assert counts["pairs"][name] == (folds == code).sum()
        assert counts["edges"][name] == (positive & (folds == code)).sum()
    assert (counts["crossing"] > 0) == (scheme in ("both", "infosem"))
    stored = adata.varp["network_fold"]
    assert stored.format == "csr"
    assert stored.dtype == np.int8
    assert (stored.data > 0).all()


def test_labelled_pairs_only():
    adata = make()
    network = adata.varp["network"].toarray()
    network[network == 0] = np.random.default_rng(1).choice([0, -1], p=[0.8, 0.2], size=(network == 0).sum())
    np.fill_diagonal(network, 0)
    adata.varp["network"] = sparse.csr_matrix(network)
    folds, _ = split(adata, universe="labelled")
    assert ((folds > 0) == (network != 0)).all()


@pytest.mark.parametrize(("test", "val"), [(0.25, 0.1), (0.4, 0.3), (0.1, 0.0)])
def test_edge_cuts_each_regulator_and_class_within_one_pair(test, val):
    adata = make(20, 120)
    folds, _ = split(adata, test_frac=test, val_frac=val)
    inside, positive = candidates(adata), adata.varp["network"].toarray() > 0
    for group in (inside & positive, inside & ~positive):
        size = group.sum(axis=1)
        assert (np.abs((group & (folds == TEST)).sum(axis=1) - test * size) < 1).all()
        assert (np.abs((group & (folds == VALIDATION)).sum(axis=1) - val * size) < 1).all()


def test_shares_of_regulators_with_one_edge_are_unbiased():
    names = [f"r{i}" for i in range(2000)] + ["target"]
    adata = ad.AnnData(np.ones((2, 2001), np.float32), var=pd.DataFrame(index=names))
    edges = pd.DataFrame({"source": names[:-1], "target": "target"})
    tr.pp.network(adata, edges)
    tr.pp.split_edges(adata)
    counts = adata.uns["network_fold"]["counts"]["edges"]
    # binomial standard deviations: 19 of 500 and 13 of 200
    assert counts["test"] == pytest.approx(500, abs=80)
    assert counts["validation"] == pytest.approx(200, abs=55)


def test_edge_draws_are_independent_of_the_target():
    tested = np.zeros((40, 40))
    for seed in range(60):
        tested += split(make(8, 40), seed=seed)[0] == TEST
    inside = candidates(make(8, 40))
    shares = tested[inside] / 60
    assert shares.mean() == pytest.approx(0.25, abs=0.01)
    assert shares.std() == pytest.approx(np.sqrt(0.25 * 0.75 / 60), rel=0.15)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_order_of_genes_does_not_matter(scheme):
    adata = make()
    shuffled = adata[:, np.random.default_rng(3).permutation(adata.n_vars)].copy()
    split(adata, scheme=scheme)
    split(shuffled, scheme=scheme)
    back = shuffled[:, adata.var_names]
    for key in ("network_fold", "network_class"):
        if key in adata.varp:
            assert (back.varp[key] != adata.varp[key]).nnz == 0


def test_dropping_a_regulator_leaves_the_split_of_the_others():
    adata = make()
    fewer = make()
    network = fewer.varp["network"].toarray()
    network[3] = 0
    fewer.varp["network"] = sparse.csr_matrix(network)
    whole, _ = split(adata, universe="listed")
    partial, _ = split(fewer, universe="listed")
    others = np.arange(adata.n_vars) != 3
    assert (whole[others] == partial[others]).all()
    fewer.var.loc["g3", "is_regulator"] = False
    partial, _ = split(fewer, universe="listed")
    assert (whole[others] == partial[others]).all()
    assert not partial[3].any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_seeds(scheme):
    first, _ = split(make(), scheme=scheme, seed=5)
    assert (split(make(), scheme=scheme, seed=5)[0] == first).all()
    assert (split(make(), scheme=scheme, seed=6)[0] != first).any()
    adata = make()
    tr.pp.split_edges(adata, scheme=scheme, seed=None, val_frac=0)
    used = record.read(adata, "network_fold")["seed"]
    assert (split(make(), scheme=scheme, seed=used, val_frac=0)[0] == adata.varp["network_fold"].toarray()).all()


def part_of_genes(folds, axis):
    """Return the folds that each gene occurs in, as sets."""
    return [set(np.unique(line[line > 0])) for line in (folds if axis == 0 else folds.T)]


def test_target_holds_out_whole_columns_and_regulator_whole_rows():
    for scheme, axis in (("target", 1), ("regulator", 0)):
        adata = make()
        folds, _ = split(adata, scheme=scheme)
        parts = [part for part in part_of_genes(folds, axis) if part]
        assert all(len(part) == 1 for part in parts)
        n_test = sum(part == {TEST} for part in parts)
        assert n_test == int(0.25 * len(parts) + 0.5)


@pytest.mark.parametrize("scheme", ["both", "infosem"])
def test_no_unseen_gene_is_in_a_training_pair_in_a_thousand_draws(scheme):
    adata = make(10, 40, 0.5)
    inside = candidates(adata)
    positive = adata.varp["network"].toarray() > 0
    seen_by_chance = np.zeros(40)
    for seed in range(1000 if scheme == "infosem" else 100):
        folds, classes = split(adata, scheme=scheme, seed=seed, test_frac=0.3, val_frac=0.2)
        train, test = folds == TRAIN, folds == TEST
        if scheme == "infosem":
            test = test & (classes == UU)
        assert (test & positive).any()
        trained = train.any(axis=0) | train.any(axis=1)
        validated = (folds == VALIDATION).any(axis=0) | (folds == VALIDATION).any(axis=1)
        tested = test.any(axis=0) | test.any(axis=1)
        assert not (trained & tested).any()
        assert not (trained & validated).any()
        assert not (validated & tested).any()
        assert not (folds > 0)[~inside].any()
        seen_by_chance += tested
    assert (seen_by_chance > 0).all()  # every gene has its turn


def test_classes_of_infosem():
    adata = make(16, 100)
    folds, classes = split(adata, scheme="infosem")
    inside, positive = candidates(adata), adata.varp["network"].toarray() > 0
    train = folds == TRAIN
    seen = train.any(axis=0) | train.any(axis=1)
    unseen = (folds == TEST) & (classes == UU)
    new = unseen.any(axis=0) | unseen.any(axis=1)
    validation = ~seen & ~new
    expected = np.zeros_like(classes)
    expected[np.ix_(seen, seen)] = SS
    expected[np.ix_(seen, new)] = SU
    expected[np.ix_(new, seen)] = US
    expected[np.ix_(new, new)] = UU
    expected[np.ix_(validation, validation)] = UU
    expected[~inside] = 0
    assert (classes == expected).all()
    assert (folds[np.isin(classes, [SU, US])] == TEST).all()
    assert set(np.unique(folds[classes == SS])) == {TRAIN, TEST}
    assert set(np.unique(folds[classes == UU])) == {VALIDATION, TEST}
    assert ((folds == VALIDATION) == (inside & np.outer(validation, validation))).all()
    # a fifth of each regulator's edges, and of its other pairs, between seen genes is held out
    for group in (positive, ~positive):
        known = group & (classes == SS)
        assert (np.abs((known & (folds == TEST)).sum(axis=1) - 0.2 * known.sum(axis=1)) < 1).all()
    counts = record.read(adata, "network_fold")["counts"]
    for name, code in CLASSES.items():
        assert counts["test_pairs"][name] == ((folds == TEST) & (classes == code)).sum()
        assert counts["test_edges"][name] == ((folds == TEST) & (classes == code) & positive).sum()


def test_labels_of_unseen_genes_reach_no_training_pair():
    adata = make(5, 40, 0.5)
    folds, classes = split(adata, scheme="infosem", universe="listed")
    before = adata.varp["network"].multiply(folds == TRAIN).toarray()
    seen = (folds == TRAIN).any(axis=0) | (folds == TRAIN).any(axis=1)
    labels = adata.varp["network"].toarray()
    rng = np.random.default_rng(0)
    for row in range(5):  # within its row, so that each regulator keeps its edges and so stays a regulator
        where = np.flatnonzero(~seen & (np.arange(40) != row)) if seen[row] else np.flatnonzero(np.arange(40) != row)
        labels[row, where] = rng.permutation(labels[row, where])
    changed = make(5, 40, 0.5)
    changed.varp["network"] = sparse.csr_matrix(labels)
    # genes that are no regulators with an edge keep their part as well, since it is drawn by name
    again, _ = split(changed, scheme="infosem", universe="listed")
    assert (labels != adata.varp["network"].toarray()).any()
    assert ((again == TRAIN) == (folds == TRAIN)).all()
    assert (changed.varp["network"].multiply(again == TRAIN).toarray() == before).all()


def test_thirds_by_degree_put_hubs_on_both_sides():
    n = 12
    names = [f"g{i}" for i in range(200)]
    rows = np.repeat(np.arange(n), [2, 2, 3, 3, 20, 20, 25, 25, 90, 95, 100, 110])
    columns = np.concatenate([n + np.arange(size) for size in (2, 2, 3, 3, 20, 20, 25, 25, 90, 95, 100, 110)])
    network = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(200, 200))
    for seed in range(20):
        adata = ad.AnnData(
            np.ones((2, 200), np.float32), var=pd.DataFrame(index=names), varp={"network": network.copy()}
        )
        folds, _ = split(adata, scheme="regulator", seed=seed, val_frac=0)
        tested = np.flatnonzero((folds == TEST).any(axis=1))
        assert np.bincount(tested // 4, minlength=3).tolist() == [1, 1, 1]


def test_classes_of_an_earlier_split_do_not_stay():
    adata = make()
    split(adata, scheme="infosem")
    split(adata, scheme="edge")
    assert adata.varp["network_class"].nnz == 0


def test_copy_view_modality_and_round_trips(tmp_path):
    adata = make()
    copied = tr.pp.split_edges(adata, scheme="infosem", copy=True)
    assert "network_fold" not in adata.varp
    view = adata[:, ::-1]
    tr.pp.split_edges(view, scheme="infosem")
    assert (view[:, adata.var_names].varp["network_fold"] != copied.varp["network_fold"]).nnz == 0
    mdata = mudata.MuData({"rna": adata.copy()})
    assert tr.pp.split_edges(mdata, mod="rna") is None
    assert "network_fold" in mdata["rna"].varp
    copied.write_h5ad(tmp_path / "a.h5ad")
    copied.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for key in ("network_fold", "network_class"):
            assert (again.varp[key] != copied.varp[key]).nnz == 0
            assert again.varp[key].dtype == np.int8
        assert record.read(again, "network_fold") == record.read(copied, "network_fold")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"network": "known"}, KeyError, r"'known' not found in `adata.varp`. Available: 'network'"),
        ({"scheme": "edges"}, ValueError, "`scheme` to be one of 'edge', 'target'"),
        ({"universe": "all"}, ValueError, "`universe` to be one of 'beeline_tf'"),
        ({"test_frac": 0}, ValueError, r"`test_frac` to lie in \(0, 1\), found 0"),
        ({"test_frac": 25}, ValueError, r"`test_frac` to lie in \(0, 1\), found 25"),
        ({"test_frac": "a"}, TypeError, "`test_frac` to be a number"),
        ({"val_frac": 1.0}, ValueError, r"`val_frac` to lie in \[0, 1\)"),
        ({"test_frac": 0.6, "val_frac": 0.4}, ValueError, "`test_frac` [+] `val_frac` to be below 1"),
        ({"seed": -1}, ValueError, "`seed` to be at least 0"),
        ({"seed": 2**32}, ValueError, "`seed` to be below"),
        ({"seed": 0.5}, TypeError, "`seed` to be an integer"),
    ],
)
def test_bad_options(options, error, message):
    adata = make()
    with pytest.raises(error, match=message):
        tr.pp.split_edges(adata, **options)
    assert set(adata.varp) == {"network"}
    assert not adata.uns


def test_too_little_to_split():
    adata = make(2, 10)
    with pytest.raises(ValueError, match="Too few regulators with a known edge to train, validate and test.*found 2"):
        tr.pp.split_edges(adata, scheme="both")
    with pytest.raises(ValueError, match="Too few regulators to train, validate and test.*found 2"):
        tr.pp.split_edges(adata, scheme="regulator")
    adata.varp["network"] = sparse.csr_matrix((10, 10), dtype=np.float32)
    with pytest.raises(ValueError, match="no known edge among its 0 candidate pairs"):
        tr.pp.split_edges(adata)
    edge = sparse.csr_matrix(([1.0], ([0], [1])), shape=(10, 10), dtype=np.float32)
    adata.varp["network"] = edge
    with pytest.raises(ValueError, match="No known edge falls in the (training|test) part .*another `seed`, a larger"):
        tr.pp.split_edges(adata)
    del adata.var["is_regulator"]
    with pytest.raises(KeyError, match="is_regulator.*pp.regulators"):
        tr.pp.split_edges(adata, universe="listed")


def test_a_validation_part_without_edges_warns():
    adata = make(2, 10)
    with pytest.warns(UserWarning, match="No known edge falls in the validation part"):
        tr.pp.split_edges(adata, val_frac=0.01, test_frac=0.5)


@pytest.mark.data
def test_unseen_genes_on_a_real_network(data_dir):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mESC.h5ad")
    tr.pp.network(adata, data_dir / "beeline" / "networks" / "Specific" / "mESC" / "TFs+500" / "BL--network.csv.gz")
    shares = []
    for seed in range(20):
        folds, classes = split(adata, scheme="infosem", seed=seed, val_frac=0.1)
        positive = adata.varp["network"].toarray() > 0
        unseen = (folds == TEST) & (classes == UU)
        assert len(np.flatnonzero(unseen.any(axis=1))) == 22  # a quarter of 88 regulators
        shares.append((unseen & positive).sum() / unseen.sum())
    # the published base rate of such splits is 0.296, with a spread of 0.057
    assert np.mean(shares) == pytest.approx(0.32, abs=0.05)
