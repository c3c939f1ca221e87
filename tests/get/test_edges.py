import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import slots

N_GENES, N_REGULATORS = 40, 12


def dense_scores(ties=True):
    """Scores with many ties, zeros and both signs; regulators and gene names in no special order."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(N_REGULATORS, N_GENES)).astype(np.float32)
    return np.round(scores * 2) / 2 if ties else scores


def make(scores=None, rows=None):
    rng = np.random.default_rng(1)
    scores = dense_scores() if scores is None else scores
    rows = np.sort(rng.choice(N_GENES, len(scores), replace=False)) if rows is None else rows
    adata = anndata.AnnData(np.ones((12, N_GENES), np.float32))
    adata.var_names = [f"G{i}" for i in rng.permutation(N_GENES)]
    network = slots.network_csr(scores, rows, np.arange(N_GENES), N_GENES)
    slots.write(adata, varp={"net": network})
    return adata


def brute(adata, keep=lambda source, target, weight: True):
    """All stored pairs by a loop over the dense matrix, strongest first, then by name."""
    stored, dense = adata.varp["net"], adata.varp["net"].toarray()
    pairs = []
    for i in range(adata.n_vars):
        columns = set(stored.indices[stored.indptr[i] : stored.indptr[i + 1]])
        for j in range(adata.n_vars):
            source, target = adata.var_names[i], adata.var_names[j]
            if j in columns and keep(source, target, dense[i, j]):
                pairs.append((source, target, dense[i, j], abs(dense[i, j])))
    pairs.sort(key=lambda pair: (-pair[3], pair[0], pair[1]))
    return pd.DataFrame(pairs, columns=["source", "target", "weight", "score"])


def same(left, right):
    pd.testing.assert_frame_equal(left.reset_index(drop=True), right.reset_index(drop=True), check_dtype=False)


def test_all_stored_pairs_with_zeros():
    adata = make()
    table = tr.get.edges(adata, "net")
    same(table, brute(adata))
    assert len(table) == N_REGULATORS * (N_GENES - 1)
    assert (table["score"] == 0).any()
    assert table["weight"].dtype == np.float32


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("n", [1, 7, 100, 10**6])
def test_n_top_is_the_head_of_the_whole_table(n, ties):
    adata = make(dense_scores(ties))
    same(tr.get.edges(adata, "net", n_top=n), brute(adata).head(n))


@pytest.mark.parametrize("n", [1, 3, 100])
def test_n_top_per_target(n):
    adata = make()
    expected = brute(adata)
    expected = expected[expected.groupby("target").cumcount() < n]
    same(tr.get.edges(adata, "net", n_top_per_target=n), expected)


def test_filters_apply_in_the_documented_order():
    adata = make()
    regulators = [adata.var_names[i] for i in np.unique(adata.varp["net"].nonzero()[0])[:5]]
    targets = list(adata.var_names[3:30])
    options = {"regulators": regulators, "targets": targets, "min_score": 0.5, "n_top_per_target": 2, "n_top": 9}
    expected = brute(adata, lambda s, t, w: s in regulators and t in targets and abs(w) >= 0.5)
    expected = expected[expected.groupby("target").cumcount() < 2].head(9)
    same(tr.get.edges(adata, "net", **options), expected)


def test_one_name_is_one_gene():
    adata = make()
    name = adata.var_names[4]
    same(tr.get.edges(adata, "net", targets=name), tr.get.edges(adata, "net", targets=[name, name]))


def test_the_order_of_genes_does_not_matter():
    adata = make()
    shuffled = adata[:, np.random.default_rng(2).permutation(N_GENES)].copy()
    same(tr.get.edges(adata, "net", n_top=50), tr.get.edges(shuffled, "net", n_top=50))


def test_gene_subset_keeps_the_pairs_among_it():
    adata = make()
    part = adata[:, [30, 2, 11, 17, 5, 25, 8, 39, 21]]
    kept = set(part.var_names)
    expected = brute(adata, lambda s, t, w: s in kept and t in kept)
    assert 0 < len(expected) < len(brute(adata))
    same(tr.get.edges(part, "net"), expected)
    same(tr.get.edges(part.copy(), "net"), expected)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path):
    adata = make()
    path = tmp_path / f"a.{form}"
    getattr(adata, f"write_{form}")(path)
    same(tr.get.edges(getattr(anndata, f"read_{form}")(path), "net"), tr.get.edges(adata, "net"))


def test_extras_are_those_of_the_same_pairs():
    adata = make(dense_scores(ties=False))
    std = adata.varp["net"].copy()
    std.data = np.arange(std.nnz, dtype=np.float32)  # the first is a stored zero
    prob = std.tolil()
    row, column = (int(i) for i in np.argwhere(adata.varp["net"].toarray() != 0)[3])
    prob[row, column] = 0
    slots.write(adata, varp={"net_std": std, "net_prob": sparse.csr_matrix(prob)})
    table = tr.get.edges(adata, "net", n_top=300)
    assert list(table.columns) == ["source", "target", "weight", "score", "std", "prob"]
    at = (adata.var_names.get_indexer(table["source"]), adata.var_names.get_indexer(table["target"]))
    np.testing.assert_array_equal(table["std"], np.asarray(std.toarray()[at]).ravel())
    whole = tr.get.edges(adata, "net")
    missing = whole[whole["prob"].isna()]
    assert (adata.var_names[row], adata.var_names[column]) in set(
        zip(missing["source"], missing["target"], strict=True)
    )
    assert whole["std"].notna().all()


def test_known_non_edges_come_last_with_score_0():
    adata = anndata.AnnData(np.ones((12, 3), np.float32))
    adata.var_names = ["A", "B", "C"]
    labels = sparse.csr_matrix(np.array([[0, -1, 0.5], [0, 0, 0], [1, 0, 0]], np.float32))
    slots.write(adata, varp={"net": labels}, uns={"net": {"schema": 1, "method": "network"}})
    table = tr.get.edges(adata, "net")
    assert table["weight"].tolist() == [1, 0.5, -1]
    assert table["score"].tolist() == [1, 0.5, 0]
    # Without such a record, -1 is an effect like any other.
    slots.write(adata, uns={"net": {"schema": 1, "method": "ridge"}})
    assert tr.get.edges(adata, "net")["score"].tolist() == [1, 1, 0.5]


def test_modality():
    adata = make()
    mdata = mudata.MuData({"rna": adata, "atac": anndata.AnnData(np.ones((12, 2), np.float32))})
    same(tr.get.edges(mdata, "net", mod="rna"), tr.get.edges(adata, "net"))
    with pytest.raises(ValueError, match=r"choose a modality with `mod=`, one of 'rna', 'atac'"):
        tr.get.edges(mdata, "net")


def test_nothing_left_is_an_empty_table():
    table = tr.get.edges(make(), "net", min_score=1e6, n_top=3, n_top_per_target=2)
    assert list(table.columns) == ["source", "target", "weight", "score"]
    assert table.empty


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_top": 0}, ValueError, r"`n_top` to be at least 1, found 0"),
        ({"n_top": 2.5}, TypeError, r"`n_top` to be an integer, found 2.5"),
        ({"n_top_per_target": -1}, ValueError, r"`n_top_per_target` to be at least 1"),
        ({"min_score": -0.1}, ValueError, r"`min_score` to lie in \[0, inf\], found -0.1"),
        ({"min_score": float("nan")}, ValueError, r"`min_score`"),
        (
            {"targets": ["g3", "G4", "X"]},
            ValueError,
            r"2 of 3 `targets` are not in .* \('g3', 'X'\)\. Did you mean 'G3'\?",
        ),
        ({"regulators": "GATA1"}, ValueError, r"1 of 1 `regulators` are not in .* \('GATA1'\)\. First var_names: 'G"),
        ({"regulators": []}, ValueError, r"`regulators` to name at least one gene"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        tr.get.edges(make(), "net", **options)


def test_bad_networks():
    adata = make()
    with pytest.raises(KeyError, match=r"`key`: 'nett' not found in `adata.varp`. Available: 'net'"):
        tr.get.edges(adata, "nett")
    with pytest.raises(TypeError, match="AnnData"):
        tr.get.edges(pd.DataFrame(), "net")
    adata.varp["net"].data[[3, 5]] = np.nan
    with pytest.raises(ValueError, match=r"`adata.varp\['net'\]` holds 2 NaN or infinite scores"):
        tr.get.edges(adata, "net")
    adata.var_names = ["A"] * N_GENES
    with pytest.raises(ValueError, match="duplicated names"):
        tr.get.edges(adata, "net")


def test_log_odds_come_out_as_probabilities_in_the_order_of_their_values():
    adata = make(dense_scores(ties=False))
    key = next(iter(adata.varp))
    stored = np.sort(adata.varp[key].data)[::-1]
    assert (stored < 0).any()
    adata.uns[key] = {"schema": 1, "method": "regnet", "score_scale": "log_odds"}
    table = tr.get.edges(adata, key)
    assert table["weight"].to_numpy() == pytest.approx(1 / (1 + np.exp(-stored.astype(float))), rel=1e-5)
    assert table["score"].to_numpy() == pytest.approx(table["weight"].to_numpy())
