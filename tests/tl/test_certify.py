import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content

import sctrellis as tr
from sctrellis import metrics

FAST = {"n_sims": 2, "n_targets": 20}


def own_test(x, y, seed):
    return metrics.partial_test(x, y).qvalue


def test_the_table_is_that_of_the_arrays():
    adata = tr.datasets.toy()
    table = tr.tl.certify(adata, "partial_test", levels=["linear", "counts"], seed=3, **FAST)
    mask = adata.var["is_regulator"].to_numpy()
    expected = metrics.certificate(
        adata.X[:, mask], adata.X[:, ~mask], "partial_test", levels=["linear", "counts"], seed=3, **FAST
    )
    pd.testing.assert_frame_equal(table, expected.table)
    assert tr.get.record(adata, "certify")["words"] == expected.words
    own = tr.tl.certify(adata, own_test, levels=["linear", "counts"], seed=3, **FAST)
    pd.testing.assert_frame_equal(own, table)
    assert tr.get.record(adata, "certify")["params"]["method"] == "own_test"


def test_all_levels_and_both_methods():
    adata = tr.datasets.toy()
    for method in ("knockoffs", "partial_test"):
        table = tr.tl.certify(adata, method, **FAST)
        assert list(dict.fromkeys(table["level"])) == [
            "linear",
            "logic",
            "counts",
            "measurement",
            "confounder",
            "decoys",
        ]
        assert len(table) == 18


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(form, tmp_path):
    adata = tr.datasets.toy()
    before = content(adata)
    tr.tl.certify(adata, "partial_test", levels=["decoys"], key_added="mine", **FAST)
    after = content(adata)
    assert set(after) - set(before) == {"uns/mine"}
    assert {k: after[k] for k in before} == before
    getattr(adata, f"write_{form}")(tmp_path / "a")
    back = getattr(ad, f"read_{form}")(tmp_path / "a")
    one, two = tr.get.record(adata, "mine"), tr.get.record(back, "mine")
    assert one["words"] == two["words"]
    pd.testing.assert_frame_equal(one["table"], two["table"], check_dtype=False)


def test_a_modality_and_a_layer():
    adata = tr.datasets.toy()
    options = {"levels": ["linear"], **FAST}
    expected = tr.tl.certify(adata, "partial_test", **options)
    adata.layers["expression"], adata.X = adata.X.copy(), np.zeros_like(adata.X)
    mdata = md.MuData({"rna": adata})
    found = tr.tl.certify(mdata, "partial_test", mod="rna", layer="expression", **options)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "ridge"}, ValueError, "`method` to be one of 'knockoffs', 'partial_test'"),
        ({"levels": "easy"}, ValueError, "`levels` to be one of"),
        ({"q": [0.0]}, ValueError, r"`q` to lie in \(0, 1\)"),
        ({"regulators": "all"}, ValueError, "no target is left"),
        ({"layer": "absent"}, KeyError, "`layer`"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
        ({"seed": -1}, ValueError, "`seed` to be at least 0"),
    ],
)
def test_bad_input(options, error, message):
    adata = tr.datasets.toy()
    before = content(adata)
    options = {"method": "partial_test", **FAST, **options}
    with pytest.raises(error, match=message):
        tr.tl.certify(adata, options.pop("method"), **options)
    assert content(adata) == before


@pytest.mark.parametrize("method", ["partial_test", "knockoffs"])
def test_q_values_come_with_the_certificate_of_their_method_and_regulators(method):
    adata = tr.datasets.toy()
    chosen = list(adata.var_names[adata.var["is_regulator"]])[1:]
    fit, options = getattr(tr.tl, method), {} if method == "partial_test" else {"n_draws": 2}

    def words(**more):
        fit(adata, **options, **more)
        return tr.get.record(adata, method)["words"]

    assert "No certificate" in words()
    tr.tl.certify(adata, method, levels=["linear"], regulators=chosen, key_added="mine", **FAST)
    said = tr.get.record(adata, "mine")["words"]
    assert words(regulators=chosen).endswith(said)
    assert "No certificate" in words()
    other = "knockoffs" if method == "partial_test" else "partial_test"
    getattr(tr.tl, other)(adata, regulators=chosen, **({"n_draws": 2} if other == "knockoffs" else {}))
    assert "No certificate" in tr.get.record(adata, other)["words"]
