"""tl.gold_check reads q-values of the pairs that a reference can speak of, and writes what metrics.gold_check says."""

import numpy as np
import pytest
from helpers import content
from scipy import sparse

import sctrellis as tr


@pytest.fixture(scope="module")
def tested():
    adata = tr.datasets.simulate_grn(400, 60, 15, density=0.1, seed=0)
    tr.tl.partial_test(adata)
    rng = np.random.default_rng(0)
    part = sparse.csr_matrix(adata.varp["truth"], copy=True)
    part.data = part.data * (rng.random(part.nnz) < 0.5)
    part.eliminate_zeros()
    adata.varp["network"] = part
    return adata


@pytest.fixture
def adata(tested):
    return tested.copy()


def test_numbers_are_counted_on_pairs_of_genes_that_the_reference_knows(adata):
    table = tr.tl.gold_check(adata, "partial_test", q=[0.05, 0.2], n_perm=0)
    known, qvalue = (adata.varp[name].toarray() for name in ("network", "partial_test_qval"))
    there = adata.varp["partial_test_qval"].astype(bool).toarray() | (qvalue > 0)
    there &= (known.sum(axis=1) > 0)[:, None] & ((known.sum(axis=0) > 0) | (known.sum(axis=1) > 0))[None, :]
    np.fill_diagonal(there, val=False)
    for row in table.itertuples():
        assert row.n_selected == (there & (qvalue <= row.q)).sum()
        assert row.n_known == (there & (qvalue <= row.q) & (known > 0)).sum()
        assert row.density == pytest.approx(known[there].mean())
    record = tr.get.record(adata, "partial_test_gold_check")
    assert record["words"].startswith(f"Of {table['n_selected'].iloc[-1]:,} pairs selected at q = 0.2")


def test_the_whole_truth_leaves_little_missing_and_half_of_it_more(adata):
    whole, half = (
        tr.tl.gold_check(adata, "partial_test", network=name, q=0.1, n_perm=0, key_added=name + "_check")
        for name in ("truth", "network")
    )
    assert whole["completeness"].item() > 0.85
    # Which pairs can be tested differs between the two, so that the half does not stand for just a half.
    assert half["completeness"].item() < 0.8 * whole["completeness"].item()


def test_only_the_record_is_written_and_it_survives_a_file(adata, tmp_path):
    import anndata

    before = content(adata)
    table = tr.tl.gold_check(adata, "partial_test", q=0.1, n_perm=9)
    assert set(content(adata)) - set(before) == {"uns/partial_test_gold_check"}
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = tr.get.record(anndata.read_h5ad(tmp_path / "a.h5ad"), "partial_test_gold_check")["table"]
    assert back.to_dict("list") == table.to_dict("list")


def test_a_reference_with_one_regulator_is_refused(adata):
    one = adata.varp["network"].tolil()
    one[1:] = 0
    adata.varp["one"] = one.tocsr()
    adata.varp["one"].eliminate_zeros()
    before = content(adata)
    with pytest.raises(ValueError, match="only one regulator of 'one'"):
        tr.tl.gold_check(adata, "partial_test", network="one", n_perm=9)
    assert content(adata) == before


def test_what_has_no_q_values_is_refused(adata):
    with pytest.raises(KeyError, match="truth_qval"):
        tr.tl.gold_check(adata, "truth")
    with pytest.raises(KeyError, match="absent"):
        tr.tl.gold_check(adata, "partial_test", network="absent")
