"""The command line gives what the functions give, and leaves nothing behind where it fails."""

import gzip
import logging
import re
import subprocess
import sys
import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from helpers import content, digest

import sctrellis as tr
from sctrellis import cli
from sctrellis.cli import main

FAST = ["--max-epochs", "2", "--n-hidden", "4", "--no-progress"]


@pytest.fixture
def files(tmp_path):
    """Return a folder with cells, and what is known of their genes in files of their own."""
    toy = tr.datasets.toy()
    edges = tr.get.edges(toy, "network")
    edges[["source", "target"]].to_csv(tmp_path / "edges.csv", index=False)
    (tmp_path / "tfs.txt").write_text("\n".join(toy.var_names[toy.var["is_regulator"]]))
    pd.DataFrame(toy.varm["embedding"], index=toy.var_names).to_csv(tmp_path / "vectors.csv")
    bare = ad.AnnData(toy.X, obs=toy.obs, var=toy.var[[]], layers={"half": toy.X / 2})
    bare.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path


def run(folder, *words):
    """Call the command line with file names below a folder."""
    argv = [str(folder / word) if "." in word and not word.startswith("-") else word for word in words]
    return main(argv)


def prepared(folder, **split):
    """Return the cells as the functions prepare them."""
    adata = ad.read_h5ad(folder / "in.h5ad")
    tr.pp.regulators(adata, folder / "tfs.txt")
    tr.pp.network(adata, folder / "edges.csv")
    if split:
        tr.pp.split_edges(adata, "network", **split)
    return adata


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_infosem_with_all_priors(files):
    before, given = digest((files / "in.h5ad").read_bytes().hex()), names(files)
    code = run(
        files, "infosem", "in.h5ad", "--regulators", "tfs.txt", "--network", "edges.csv", "--known", "--split",
        "edge", "--embedding", "vectors.csv", "--seed", "3", "--n-runs", "2", "--layer", "half", "--out", "out.h5ad",
        "--edges", "found.csv.gz", *FAST,
    )  # fmt: skip
    assert code == 0
    expected = prepared(files, scheme="edge", seed=3)
    tr.pp.gene_embedding(expected, files / "vectors.csv")
    tr.tl.infosem(
        expected, embedding="embedding", known="network", layer="half", n_runs=2, max_epochs=2, n_hidden=4, seed=3
    )
    written = ad.read_h5ad(files / "out.h5ad")
    assert set(written.varp) == set(expected.varp) >= {"infosem", "infosem_std", "network_fold"}
    for key in expected.varp:
        assert digest(written.varp[key]) == digest(expected.varp[key]), key
    theirs, ours = tr.get.record(expected, "infosem"), tr.get.record(written, "infosem")
    assert {k: v for k, v in ours["params"].items() if k != "progress"} == {
        k: v for k, v in theirs["params"].items() if k != "progress"
    }
    edges = pd.read_csv(files / "found.csv.gz", dtype={"weight": "float32", "score": "float32", "std": "float32"})
    pd.testing.assert_frame_equal(edges, tr.get.edges(expected, "infosem"))
    with gzip.open(files / "found.csv.gz") as file:
        assert file.readline().startswith(b"source,target,weight")
    assert digest((files / "in.h5ad").read_bytes().hex()) == before
    assert names(files) == sorted([*given, "out.h5ad", "found.csv.gz"])


def test_deepsem(files):
    assert (
        run(files, "deepsem", "in.h5ad", "--regulators", "all", "--out", "out.h5ad", "--key-added", "net", *FAST) == 0
    )
    expected = prepared(files)
    tr.tl.deepsem(expected, regulators="all", max_epochs=2, n_hidden=4, key_added="net")
    assert digest(ad.read_h5ad(files / "out.h5ad").varp["net"]) == digest(expected.varp["net"])


@pytest.mark.parametrize("method", ["ridge", "spearman", "degree"])
def test_baseline(files, method):
    degree = ["--network", "edges.csv", "--split", "edge"] if method == "degree" else []
    code = run(
        files, "baseline", "in.h5ad", "--method", method, "--regulators", "tfs.txt", "--out", "out.h5ad", "--edges",
        "top.csv", "--n-edges", "7", *degree,
    )  # fmt: skip
    assert code == 0
    expected = prepared(files, scheme="edge")
    tr.tl.baseline(expected, method, **({"network": "network"} if degree else {}))
    assert digest(ad.read_h5ad(files / "out.h5ad").varp[method]) == digest(expected.varp[method])
    assert list(pd.read_csv(files / "top.csv")["target"]) == list(tr.get.edges(expected, method, n_top=7)["target"])


def test_streaming_changes_nothing(files):
    common = ("baseline", "in.h5ad", "--method", "ridge", "--regulators", "tfs.txt")
    assert run(files, *common, "--out", "whole.h5ad", "--no-backed") == 0
    assert run(files, *common, "--out", "streamed.h5ad", "--backed") == 0
    assert content(ad.read_h5ad(files / "whole.h5ad")) == content(ad.read_h5ad(files / "streamed.h5ad"))


def test_large_files_are_streamed(files, monkeypatch):
    monkeypatch.setattr(cli, "_BACKED_GB", 0)
    seen = []
    monkeypatch.setattr(ad, "read_h5ad", lambda path, backed=None, read=ad.read_h5ad: seen.append(backed) or read(path))
    assert run(files, "baseline", "in.h5ad", "--regulators", "all", "--out", "out.h5ad") == 0
    assert seen == ["r"]


@pytest.mark.parametrize("backed", ["--backed", "--no-backed"])
def test_out_may_be_the_input(files, backed):
    common = (backed, "--regulators", "tfs.txt", "--out", "in.h5ad")
    assert run(files, "baseline", "in.h5ad", *common) == 0
    assert run(files, "baseline", "in.h5ad", "--method", "ridge", *common) == 0
    adata = ad.read_h5ad(files / "in.h5ad")
    assert {"pearson", "ridge"} <= set(adata.varp)
    assert np.array_equal(adata.X, tr.datasets.toy().X)


def test_zarr(files):
    ad.read_h5ad(files / "in.h5ad").write_zarr(files / "in.zarr")
    for method in ("pearson", "random"):
        assert run(files, "baseline", "in.zarr", "--regulators", "tfs.txt", "--method", method, "--out", "in.zarr") == 0
    expected = prepared(files)
    tr.tl.baseline(expected, "pearson")
    adata = ad.read_zarr(files / "in.zarr")
    assert digest(adata.varp["pearson"]) == digest(expected.varp["pearson"])
    assert "random" in adata.varp
    assert names(files) == ["edges.csv", "in.h5ad", "in.zarr", "tfs.txt", "vectors.csv"]


def test_mudata(files, capsys):
    rna = ad.read_h5ad(files / "in.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mudata.MuData({"rna": rna, "other": rna[:, :3].copy()}).write_h5mu(files / "in.h5mu")
        common = ("baseline", "in.h5mu", "--regulators", "tfs.txt", "--out", "out.h5mu")
        assert run(files, *common) == 2
        assert "choose one with --mod, of rna, other" in capsys.readouterr().err
        assert run(files, *common, "--mod", "rna", "--edges", "found.csv") == 0
        mdata = mudata.read_h5mu(files / "out.h5mu")
    expected = prepared(files)
    tr.tl.baseline(expected, "pearson")
    assert digest(mdata["rna"].varp["pearson"]) == digest(expected.varp["pearson"])
    assert "pearson" not in mdata["other"].varp
    assert len(pd.read_csv(files / "found.csv")) == expected.varp["pearson"].nnz


def test_evaluate(files, capsys):
    for method in ("pearson", "partial"):
        source = "in.h5ad" if method == "pearson" else "out.h5ad"
        assert run(files, "baseline", source, "--method", method, "--regulators", "tfs.txt", "--out", "out.h5ad") == 0
    capsys.readouterr()
    code = run(
        files, "evaluate", "out.h5ad", "--keys", "partial", "pearson", "--network", "edges.csv", "--out", "table.csv",
        "--baselines", "random", "ridge", "--metrics", "auprc", "auroc", "--n-boot", "20", "--universe", "listed",
        "--figure", "curve.png",
    )  # fmt: skip
    assert code == 0
    adata = ad.read_h5ad(files / "out.h5ad")
    tr.pp.network(adata, files / "edges.csv")
    expected = tr.tl.evaluate(
        adata, ["partial", "pearson"], baselines=["random", "ridge"], metrics=["auprc", "auroc"], n_boot=20,
        universe="listed",
    )  # fmt: skip
    written = pd.read_csv(files / "table.csv", keep_default_na=False, na_values=[""])
    expected["note"] = expected["note"].replace("", np.nan)
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    assert (files / "curve.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    best = expected.query("level == 'micro' and metric == 'auprc'").sort_values("value").iloc[-1]
    first = shown.splitlines()[1].split()
    assert first[0] == best["key"]
    assert f"{best['value']:.3f}" in first
    assert "ridge    baseline" in shown
    assert "Judged on 174 pairs" in shown


def test_evaluate_by_fold_and_key(files):
    run(
        files, "infosem", "in.h5ad", "--regulators", "tfs.txt", "--network", "edges.csv", "--known", "--split", "edge",
        "--seed", "1", "--out", "out.h5ad", *FAST,
    )  # fmt: skip
    for network in ("network", "edges.csv"):
        words = ("--network", network, "--fold", "train", "--n-boot", "0", "--out", "table.csv")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the fit has seen these labels
            assert run(files, "evaluate", "out.h5ad", "--keys", "infosem", *words) == 0
        table = pd.read_csv(files / "table.csv")
        assert set(table["fold"]) == {"train"}
        assert {"infosem", "degree", "random", "pearson", "ridge"} == set(table["key"])


BAD = {
    "no input": (["baseline", "none.h5ad", "--out", "out.h5ad"], "There is no file '.*none.h5ad'"),
    "other input": (["baseline", "edges.csv", "--out", "out.h5ad"], "end in .h5ad, .zarr or .h5mu, found"),
    "damaged input": (["baseline", "broken.h5ad", "--out", "out.h5ad"], "broken.h5ad' cannot be read as h5ad"),
    "other output": (["baseline", "in.h5ad", "--out", "out.csv"], "--out to end in .h5ad or .zarr, found"),
    "no folder": (["baseline", "in.h5ad", "--out", "none/out.h5ad"], "--out: there is no folder '.*none'"),
    "a folder": (["baseline", "in.h5ad", "--out", "folder.h5ad"], "'.*folder.h5ad' is a folder"),
    "other folder": (["baseline", "in.h5ad", "--out", "folder.zarr"], "'.*folder.zarr' is a folder"),
    "edges": (["baseline", "in.h5ad", "--out", "out.h5ad", "--edges", "e.txt"], "--edges to end in .csv or .csv.gz"),
    "n_edges": (["baseline", "in.h5ad", "--out", "out.h5ad", "--n-edges", "3"], "give --edges too"),
    "no regulators": (["baseline", "in.h5ad", "--out", "out.h5ad"], "'is_regulator' not found in `adata.var`"),
    "regulators": (
        ["baseline", "in.h5ad", "--out", "out.h5ad", "--regulators", "none.txt"],
        "--regulators: there is no file '.*none.txt', and no such key in .var .there: none",
    ),
    "other names": (
        ["baseline", "in.h5ad", "--out", "out.h5ad", "--regulators", "edges.csv", "--layer", "none"],
        "'none' not found in `adata.layers`. Available: 'half'",
    ),
    "split": (["baseline", "in.h5ad", "--out", "out.h5ad", "--split", "edge"], "name them with --network"),
    "seed": (
        ["baseline", "in.h5ad", "--out", "out.h5ad", "--regulators", "all", "--seed", "-1"],
        "`seed` to be at least",
    ),
    "device": (
        ["infosem", "in.h5ad", "--out", "out.h5ad", "--regulators", "all", "--device", "abacus"],
        "device.*abacus",
    ),
    "embedding": (
        ["infosem", "in.h5ad", "--out", "out.h5ad", "--regulators", "all", "--embedding", "go"],
        "--embedding: there is no file 'go', and no such key in .varm .there: none",
    ),
    "known": (
        ["infosem", "in.h5ad", "--out", "out.h5ad", "--regulators", "all", "--known"],
        "`known`: 'network' not found in `adata.varp`",
    ),
    "backed zarr": (["baseline", "some.zarr", "--backed", "--out", "out.h5ad"], "--backed streams h5ad files only"),
    "keys": (
        ["evaluate", "in.h5ad", "--keys", "infosem", "--network", "edges.csv", "--out", "table.csv"],
        "'infosem' not found in `adata.varp`",
    ),
    "figure": (
        ["evaluate", "in.h5ad", "--keys", "a", "--network", "edges.csv", "--out", "table.csv", "--figure", "f.xls"],
        "--figure to end in .png or .pdf or .svg",
    ),
    "demo": (["demo", "--out", "edges.csv"], "edges.csv"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "_"))
def test_bad_input(files, capsys, case):
    (files / "broken.h5ad").write_text("not HDF5")
    (files / "some.zarr").mkdir()
    for name in ("folder.h5ad", "folder.zarr"):
        (files / name).mkdir()
        (files / name / "precious.txt").write_text("x")
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    words, message = BAD[case]
    assert run(files, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sctrellis: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["infer"], "invalid choice: 'infer'"),
        (["baseline", "a.h5ad"], "required: --out"),
        (["baseline", "a.h5ad", "--out", "b.h5ad", "--method", "magic"], "invalid choice: 'magic'"),
        (["infosem", "a.h5ad", "--out", "b.h5ad", "--max-epochs", "few"], "invalid int value: 'few'"),
        (["infosem", "a.h5ad", "--out", "b.h5ad", "--epochs", "3"], "unrecognized arguments: --epochs"),
    ],
)
def test_bad_words(capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_while_writing_leaves_the_old_file(files, monkeypatch, capsys):
    assert run(files, "baseline", "in.h5ad", "--regulators", "all", "--out", "out.h5ad") == 0
    before = {path: path.read_bytes() for path in files.iterdir()}

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    words = ("--regulators", "all", "--method", "random", "--out", "out.h5ad", "--edges", "found.csv")
    assert run(files, "baseline", "in.h5ad", *words) == 2
    assert "No space left" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_interrupt(files, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tr.tl._infosem.slots, "write", interrupt)
    words = ("--regulators", "all", "--out", "out.h5ad", "--checkpoint", "kept.folder", *FAST)
    assert run(files, "infosem", "in.h5ad", *words) == 130
    assert "stopped; no output was written. Call it again with the same --checkpoint" in capsys.readouterr().err
    assert "out.h5ad" not in names(files)


def test_warnings_are_one_line(files, monkeypatch, capsys):
    adata = ad.read_h5ad(files / "in.h5ad")
    adata.X = np.rint(100 * adata.X)
    adata.write_h5ad(files / "counts.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(files, "baseline", "counts.h5ad", "--regulators", "all", "--out", "out.h5ad") == 0
    err = capsys.readouterr().err
    assert err.startswith("sctrellis: warning: `adata.X` holds only integers")
    assert err.count("\n") == 1


def test_verbose(files, capsys, monkeypatch):
    logger = logging.getLogger("sctrellis")
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    monkeypatch.setattr(tr.settings, "_verbosity", tr.settings.verbosity)
    level, words = logger.level, ("baseline", "in.h5ad", "--regulators", "all", "--out", "out.h5ad")
    try:
        assert run(files, *words) == 0
        assert capsys.readouterr() == ("", "")
        assert run(files, *words, "-v") == 0
        assert capsys.readouterr() == ("", "added varp['pearson'], uns['pearson']\n")
        assert run(files, *words, "-vv", "--layer", "none") == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("sctrellis: error: `layer`: 'none' not found")
    finally:
        logger.setLevel(level)


def test_module_runs_as_command():
    done = subprocess.run([sys.executable, "-m", "sctrellis", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"sctrellis {tr.__version__}\n")


@pytest.mark.parametrize("command", ["infosem", "deepsem", "baseline", "evaluate"])
def test_help_says_something_about_every_option(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    parser = cli._parser([command])._subparsers._group_actions[0].choices[command]
    silent = [action.dest for action in parser._actions if not action.help and not action.choices]
    assert silent == []


def test_every_argument_is_an_option():
    for name in ("infosem", "deepsem", "baseline", "evaluate"):
        parser = cli._parser([name])._subparsers._group_actions[0].choices[name]
        there = {action.dest for action in parser._actions}
        function = getattr(tr.tl, name)
        assert set(cli.inspect.signature(function).parameters) - there <= {"adata", "copy", "key_added"}


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"sctrellis {tr.__version__}\n"
