import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from helpers import content

import sctrellis as tr

TIMES = ["seconds", "wall_seconds", "peak_memory_mb"]
FAST = {"seeds": 2, "metrics": ["auroc", "auprc"], "progress": False}


@pytest.fixture(scope="module")
def world():
    """60 genes of which 24 regulate, with a known network and embeddings that predict it."""
    adata = tr.datasets.simulate_grn(50, 60, 24, density=0.25, embedding="informative", n_dims=6)
    adata.varp["network"] = adata.varp["truth"]
    return adata


@pytest.fixture
def grn(world):
    return world.copy()


def same(one, two):
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.drop(columns=TIMES))


# functions of a user


def constant(adata, *, key_added):
    tr.tl.baseline(adata, "random", seed=7, key_added=key_added)


def failing(adata, *, seed, key_added):
    if seed == 1:
        raise ValueError("this seed is unlucky")
    constant(adata, key_added=key_added)


def silent(adata, *, key_added):
    pass


class Stopping:
    """Counts its fits, and interrupts the one that it is told to."""

    def __init__(self, at=None, error=KeyboardInterrupt):
        self.at, self.error, self.seen = at, error, []

    def __call__(self, adata, *, network, seed, key_added):
        if len(self.seen) == self.at:
            raise self.error
        self.seen.append((adata.uns[f"{network}_fold"]["scheme"], seed))
        tr.tl.baseline(adata, "random", seed=seed, key_added=key_added)


def test_numbers_are_those_of_evaluate(grn):
    table = tr.tl.benchmark(grn, ["pearson", "degree", "random"], **FAST)
    columns = ["value", "base", "n_pairs", "n_positive", "n_regulators", "scored"]
    for scheme, seed in [("edge", 0), ("infosem", 1)]:
        by_hand = grn.copy()
        tr.pp.split_edges(by_hand, scheme=scheme, seed=seed)
        for method in ("pearson", "degree", "random"):
            tr.tl.baseline(by_hand, method, network="network", seed=seed)
        classes = ["all"] if scheme == "edge" else ["SS", "SU", "US", "UU"]
        for pair_class in classes:
            chosen = None if pair_class == "all" else pair_class
            options = {"metrics": FAST["metrics"], "baselines": (), "n_boot": 0, "pair_class": chosen}
            for method in ("pearson", "degree", "random"):
                if pair_class == "UU" and method == "degree":
                    with pytest.warns(UserWarning, match="the same score, 0"):
                        expected = tr.tl.evaluate(by_hand, method, **options)
                else:
                    expected = tr.tl.evaluate(by_hand, method, **options)
                found = table.query("method == @method and scheme == @scheme and seed == @seed")
                found = found[found["pair_class"] == pair_class].set_index(["metric", "level"])[columns]
                pd.testing.assert_frame_equal(
                    found, expected.set_index(["metric", "level"])[columns], check_dtype=False
                )
    degree = table.query("method == 'degree' and pair_class == 'UU' and level == 'micro' and metric == 'auroc'")
    assert set(degree["value"]) == {0.5}
    assert degree["note"].str.contains("it gives all").all()
    assert set(table["pair_class"]) == {"all", "SS", "SU", "US", "UU"}
    assert set(table["kind"]) == {"baseline"}
    assert (table["error"] == "").all()
    assert (table[["seconds", "wall_seconds", "peak_memory_mb"]] >= 0).all(axis=None)


def test_nothing_but_the_table_is_written_and_folds_stay(grn):
    tr.pp.split_edges(grn, scheme="target", seed=9)
    before = content(grn)
    table = tr.tl.benchmark(grn, ["pearson"], key_added="mine", scheme="edge", **FAST)
    after = content(grn)
    assert {slot for slot in after if after[slot] != before.get(slot)} == {"uns/mine"}
    pd.testing.assert_frame_equal(tr.get.record(grn, "mine")["table"].reset_index(drop=True), table)


def test_methods_without_labels_are_fitted_once_for_all_schemes(grn):
    fits = []

    def free(adata, *, key_added):
        fits.append("free")
        constant(adata, key_added=key_added)

    learning = Stopping()
    tr.tl.benchmark(grn, {"free": free, "learning": learning}, **FAST)
    assert len(fits) == 2
    assert learning.seen == [("edge", 0), ("infosem", 0), ("edge", 1), ("infosem", 1)] or sorted(learning.seen) == [
        ("edge", 0),
        ("edge", 1),
        ("infosem", 0),
        ("infosem", 1),
    ]


def test_workers_do_not_change_the_result(grn):
    methods = ["pearson", "degree", "random"]
    one = tr.tl.benchmark(grn, methods, **FAST)
    two = tr.tl.benchmark(grn, methods, n_jobs=2, **FAST)
    same(one, two)


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_stopped_benchmark_goes_on_and_equals_one_that_was_not(grn, tmp_path, at, error):
    whole = tr.tl.benchmark(grn, {"pearson": "pearson", "own": Stopping()}, **FAST)
    before = content(grn)
    stopping = Stopping(at, error)
    with pytest.raises(error):
        tr.tl.benchmark(grn, {"pearson": "pearson", "own": stopping}, folder=tmp_path / "b", **FAST)
    assert content(grn) == before
    again = Stopping()
    resumed = tr.tl.benchmark(grn, {"pearson": "pearson", "own": again}, folder=tmp_path / "b", **FAST)
    same(resumed, whole)
    # Nothing is fitted twice, and nothing is left to do.
    assert sorted(stopping.seen + again.seen) == sorted(set(stopping.seen + again.seen))
    assert len(stopping.seen + again.seen) == 4
    third = Stopping(0)
    pd.testing.assert_frame_equal(
        tr.tl.benchmark(grn, {"pearson": "pearson", "own": third}, folder=tmp_path / "b", **FAST), resumed
    )


def test_a_killed_process_leaves_what_is_done(tmp_path):
    script = """
        import os, signal, sys
        import sctrellis as tr

        def own(adata, *, network, seed, key_added):
            if seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            tr.tl.baseline(adata, "random", seed=seed, key_added=key_added)

        own.__module__ = own.__qualname__ = "own"
        adata = tr.datasets.simulate_grn(50, 60, 24, density=0.25)
        adata.varp["network"] = adata.varp["truth"]
        options = {"scheme": "edge", "seeds": 3, "metrics": ["auroc"], "progress": False}
        tr.tl.benchmark(adata, {"own": own}, folder=sys.argv[1], **options)
    """
    file, folder = tmp_path / "killed.py", tmp_path / "runs"
    file.write_text(textwrap.dedent(script))
    killed = subprocess.run([sys.executable, file, folder], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.glob("own.*.json"))) == 1

    fits = []

    def own(adata, *, network, seed, key_added):
        fits.append(seed)
        tr.tl.baseline(adata, "random", seed=seed, key_added=key_added)

    own.__module__ = own.__qualname__ = "own"
    adata = tr.datasets.simulate_grn(50, 60, 24, density=0.25)
    adata.varp["network"] = adata.varp["truth"]
    options = {"scheme": "edge", "seeds": 3, "metrics": ["auroc"], "progress": False}
    resumed = tr.tl.benchmark(adata, {"own": own}, folder=folder, **options)
    assert fits == [1, 2]
    same(resumed, tr.tl.benchmark(adata, {"own": own}, **options))


def test_what_is_stored_is_whole(grn, tmp_path):
    table = tr.tl.benchmark(grn, ["pearson"], folder=tmp_path / "b", scheme="edge", **FAST)
    files = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert len(files) == 3  # two runs and the settings; no temporary file
    assert "settings.json" in files
    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "b").glob("pearson*.json"))]
    assert runs[0]["rows"][0]["value"] == table["value"].iloc[0]


def test_a_damaged_run_is_done_again(grn, tmp_path, caplog):
    first = tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, scheme="edge", **FAST)
    (file, *_) = sorted(tmp_path.glob("pearson*.json"))
    file.write_text(file.read_text()[:40])
    with caplog.at_level(logging.WARNING, logger="sctrellis"):
        same(tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, scheme="edge", **FAST), first)
    assert "is damaged; its run is done again" in caplog.text


def test_methods_seeds_and_schemes_can_be_added(grn, tmp_path):
    tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, scheme="edge", **FAST)
    options = {**FAST, "seeds": 3}
    more = tr.tl.benchmark(grn, ["degree", "pearson"], folder=tmp_path, **options)
    same(more, tr.tl.benchmark(grn, ["degree", "pearson"], **options))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: {"metrics": ["auroc"]}, "metrics"),
        (lambda a: {"test_frac": 0.4}, "test_frac"),
        (lambda a: a.__setitem__, None),
    ],
)
def test_other_settings_are_refused(grn, tmp_path, change, names):
    tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, scheme="edge", **FAST)
    if names is None:
        grn.X[0, 0] += 1
        options, names = {}, "expression"
    else:
        options = change(grn)
    with pytest.raises(ValueError, match=rf"holds a benchmark with other settings \({names} differ\)"):
        tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, scheme="edge", **{**FAST, **options})


def test_other_arguments_of_a_method_are_refused(grn, tmp_path):
    options = {"folder": tmp_path, "scheme": "edge", **FAST}
    tr.tl.benchmark(grn, {"mine": "pearson"}, **options)
    with pytest.raises(ValueError, match="the run of 'mine' in .* was made with other arguments"):
        tr.tl.benchmark(grn, {"mine": "spearman"}, **options)


def test_a_failure_is_a_row_and_loses_nothing(grn, tmp_path):
    options = {"folder": tmp_path, "scheme": "edge", **FAST}
    with pytest.warns(UserWarning, match=r"1 of the runs failed, as 'bad' on 'edge' \(all\), seed 1: ValueError: this"):
        table = tr.tl.benchmark(grn, {"bad": failing, "pearson": "pearson"}, **options)
    (row,) = table[table["error"] != ""].to_dict("records")
    assert (row["method"], row["seed"], row["error"]) == ("bad", 1, "ValueError: this seed is unlucky")
    assert np.isnan(row["value"])
    good = table[table["error"] == ""]
    assert set(zip(good["method"], good["seed"], strict=True)) == {("bad", 0), ("pearson", 0), ("pearson", 1)}
    # A failed run is tried again.
    with pytest.warns(UserWarning, match="1 of the runs failed"):
        tr.tl.benchmark(grn, {"bad": failing, "pearson": "pearson"}, **options)


def test_a_function_that_writes_nothing_failed(grn):
    with pytest.warns(UserWarning, match="2 of the runs failed"):
        table = tr.tl.benchmark(grn, {"silent": silent}, scheme="edge", **FAST)
    assert table["error"].str.contains("wrote no network").all()


def test_a_scheme_that_cannot_be_split_is_a_reason_in_the_table(grn):
    network = grn.varp["network"].toarray()
    network[np.setdiff1d(np.arange(60), np.argsort(network.sum(axis=1))[-2:])] = 0  # two regulators are left
    grn.varp["network"] = network
    with pytest.warns(UserWarning, match="runs failed, as 'pearson' on 'infosem'"):
        table = tr.tl.benchmark(grn, ["pearson"], **FAST)
    assert table.query("scheme == 'infosem'")["error"].str.contains("Too few regulators").all()
    assert table.query("scheme == 'edge' and level == 'micro'")["value"].notna().all()


def test_ablation_adds_embeddings_that_know_nothing(grn):
    methods = {"cosine": "cosine", "pearson": "pearson"}
    options = {**FAST, "seeds": 3, "metrics": ["auroc"], "scheme": "edge"}
    table = tr.tl.benchmark(grn, methods, embedding="embedding", embedding_ablation=True, **options)
    kinds = table.groupby("method")["embedding"].unique().map(sorted).to_dict()
    assert kinds == {"cosine": ["random", "real", "shuffled"], "pearson": ["none"]}
    values = table.query("method == 'cosine' and level == 'micro'").pivot(
        index="seed", columns="embedding", values="value"
    )
    assert values["shuffled"].nunique() == 3
    assert not np.isclose(values["real"], values["shuffled"]).any()
    vectors = grn.varm["embedding"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    split = grn.copy()
    tr.pp.split_edges(split, seed=0)
    row, column = (split.varp["network_fold"].toarray() == 3).nonzero()
    label = np.asarray(split.varp["network"][row, column]).ravel() > 0
    expected = tr.metrics.auroc((unit @ unit.T)[row, column], label)
    assert values.loc[0, "real"] == pytest.approx(expected, abs=1e-6)


def test_controls_keep_which_genes_have_an_embedding(grn):
    seen = {}

    def spy(adata, *, embedding, seed, key_added):
        values = np.asarray(adata.varm[embedding])
        seen.setdefault(seed, []).append(values)
        constant(adata, key_added=key_added)

    grn.varm["embedding"][3] = np.nan
    options = {"scheme": "edge", "embedding": "embedding", "embedding_ablation": True, **FAST}
    tr.tl.benchmark(grn, {"spy": spy}, **options)
    real, shuffled, random = seen[0]
    there = ~np.isnan(real).any(axis=1)
    np.testing.assert_array_equal(real, grn.varm["embedding"])
    for values in (shuffled, random):
        np.testing.assert_array_equal(~np.isnan(values).any(axis=1), there)
        assert not np.array_equal(values[there], real[there])
    assert sorted(map(tuple, shuffled[there])) == sorted(map(tuple, real[there]))
    np.testing.assert_allclose(random[there].std(), real[there].std(), rtol=0.2)
    assert not np.array_equal(seen[1][1][there], shuffled[there])  # another seed, another order


def test_prefix_counts_shared_letters():
    genes = ["Gata1", "GATA2", "Gapdh", "Klf1"]
    adata = ad.AnnData(np.ones((12, 4), np.float32), var=pd.DataFrame(index=genes))
    from sctrellis.tl._benchmark_runs import prefix

    prefix(adata, key_added="p")
    assert adata.varp["p"].toarray()[0].tolist() == [0, 4, 2, 0]


def test_a_preset_is_the_method_with_the_known_edges(grn):
    options = {"seeds": 1, "metrics": ["auroc"], "progress": False, "scheme": "edge"}
    table = tr.tl.benchmark(grn, {"C": ("infosem_c", {"max_epochs": 0})}, **options)
    tr.pp.split_edges(grn)
    tr.tl.infosem(grn, known="network", max_epochs=0)
    expected = tr.tl.evaluate(grn, "infosem", metrics=["auroc"], baselines=(), n_boot=0)
    assert set(table["kind"]) == {"method"}
    np.testing.assert_array_equal(table["value"], expected["value"])


def test_a_modality_and_given_seeds(grn):
    mdata = md.MuData({"rna": grn})
    options = {"scheme": "edge", "seeds": [5, 3], "metrics": "auroc", "progress": False}
    table = tr.tl.benchmark(mdata, "pearson", mod="rna", **options)
    assert list(dict.fromkeys(table["seed"])) == [5, 3]
    assert "benchmark" in mdata["rna"].uns


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(grn, form, tmp_path):
    with pytest.warns(UserWarning, match="runs failed"):
        table = tr.tl.benchmark(grn, {"a/b": "pearson", "bad": failing}, scheme="edge", **FAST)
    getattr(grn, f"write_{form}")(tmp_path / "a")
    back = getattr(ad, f"read_{form}")(tmp_path / "a")
    found = tr.get.record(back, "benchmark")["table"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.astype(table.dtypes), table)


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        (["pearsn"], {}, ValueError, "'pearsn' is none of the methods known: 'pearson'|pearson, spearman"),
        ([], {}, ValueError, "`methods` to hold at least one name"),
        (["pearson", "pearson"], {}, ValueError, "each once"),
        ({}, {}, ValueError, "`methods` to hold at least one method, found none"),
        ({"a": 3}, {}, TypeError, r"expected a name and `\(method, arguments\)`, found 'a': 3"),
        ({"a": ("ridge", {"rho": 3, "nonsense": 1})}, {}, TypeError, "'a' cannot be called with .*'nonsense'"),
        (["cosine"], {}, ValueError, "'cosine' reads an embedding: name a key of `adata.varm` with `embedding=`"),
        (["cosine"], {"embedding": "absent"}, KeyError, "`embedding`: 'absent' not found"),
        (["pearson"], {"network": "absent"}, KeyError, "`network`: 'absent' not found"),
        (["pearson"], {"scheme": "random"}, ValueError, "`scheme` to be one of 'edge', .*found 'random'"),
        (["pearson"], {"scheme": []}, ValueError, "`scheme` to hold at least one name"),
        (["pearson"], {"seeds": 0}, ValueError, "`seeds` to be at least 1, found 0"),
        (["pearson"], {"seeds": [1, 1]}, ValueError, "`seeds` to hold at least one seed, each once"),
        (["pearson"], {"metrics": ["f1"]}, ValueError, "`metrics` to be one of"),
        (["pearson"], {"test_frac": 2}, ValueError, "`test_frac` to lie in"),
        (["pearson"], {"layer": "absent"}, KeyError, "`layer`: 'absent' not found"),
        (["pearson"], {"n_jobs": 0}, ValueError, "`n_jobs` to be -1"),
        (["pearson"], {"universe": "all"}, ValueError, "`universe` to be one of"),
        (["pearson"], {"regulators": ["nobody"]}, ValueError, "None of the 1 names in `regulators`"),
    ],
)
def test_bad_input(grn, methods, options, error, message):
    before = content(grn)
    with pytest.raises(error, match=message):
        tr.tl.benchmark(grn, methods, **{**FAST, **options})
    assert content(grn) == before


def test_bad_folders(grn, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file. Name a folder"):
        tr.tl.benchmark(grn, ["pearson"], folder=tmp_path / "file", **FAST)
    with pytest.raises(ValueError, match="is not empty and holds no benchmark"):
        tr.tl.benchmark(grn, ["pearson"], folder=tmp_path, **FAST)
    assert re.fullmatch("x", (tmp_path / "file").read_text())
