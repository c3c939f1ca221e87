"""The demonstration runs, and its files are what it says they are."""

import anndata as ad
import pandas as pd
import pytest
from matplotlib.image import imread

import sctrellis as tr
from sctrellis.cli import main

BASELINES = {"random", "degree", "pearson", "partial", "ridge"}
METHODS = {"infosem", "infosem_B", "infosem_BC", "deepsem"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the short demonstration once; return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "output"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("sctrellis.cli._say", lines.append)
        assert main(["demo", "--quick", "--seed", "1", "--out", str(folder)]) == 0
    return folder, "\n".join(lines)


def test_lists_every_file(demo):
    folder, text = demo
    listed = {line.split()[0] for line in text.split("Files in ")[1].splitlines()[1:]}
    assert listed == {path.name for path in folder.iterdir()}


def test_table_has_methods_and_baselines(demo):
    folder, text = demo
    table = pd.read_csv(folder / "evaluation.csv")
    assert set(table["command"]) == {"sctrellis demo --seed 1 --quick"}
    assert (set(table["seed"]), set(table["n_cells"])) == ({1}, {200})
    auprc = table.query("metric == 'auprc' and level == 'micro' and pair_class == 'all'").set_index("key")
    assert set(auprc.index[auprc["kind"] == "baseline"]) == BASELINES
    assert set(auprc.index[auprc["kind"] == "method"]) == METHODS
    lines = {line.split()[0]: line for line in text.split("ranked:")[1].split("Judged")[0].splitlines() if line}
    for key, row in auprc.iterrows():
        assert f" {row['value']:.3f} [{row['low']:.2f}, {row['high']:.2f}] " in lines[key]
        assert ("baseline" in lines[key]) == (key in BASELINES)
    assert "200 cells, 80 genes, 15 regulators, " in text
    assert text.count("seed 1; `sctrellis demo --seed 1 --quick`") == 2


def test_expression_finds_planted_edges(demo):
    table = pd.read_csv(demo[0] / "evaluation.csv")
    ratio = table.query("metric == 'auprc_ratio' and level == 'micro' and pair_class == 'all'").set_index("key")[
        "value"
    ]
    assert ratio["infosem"] > 2
    assert ratio["infosem"] > ratio["random"] + 1


def test_simulated_cells_agree_with_the_table(demo):
    adata = ad.read_h5ad(demo[0] / "simulated.h5ad")
    assert METHODS | {"truth", "truth_fold", "truth_class"} <= set(adata.varp)
    stored = tr.get.record(adata, "evaluate")["table"]
    table = pd.read_csv(demo[0] / "evaluation.csv").query("pair_class == 'all'")
    assert table["value"].to_numpy() == pytest.approx(stored["value"].to_numpy(), nan_ok=True)
    again = tr.tl.evaluate(adata, "infosem", network="truth", metrics=["auprc"], baselines=[], n_boot=0)
    row = table.query("key == 'infosem' and metric == 'auprc' and level == 'micro'")
    assert row["value"].item() == pytest.approx(again.query("level == 'micro'")["value"].item())
    assert tr.get.record(adata, "infosem_BC")["labels_used"] == "truth"


def test_blood_cells_hold_the_printed_edges(demo):
    adata = ad.read_h5ad(demo[0] / "pbmc.h5ad")
    assert {"infosem", "infosem_std", "pearson", "ridge", "random"} <= set(adata.varp)
    strongest = tr.get.edges(adata, "infosem", n_top=1).iloc[0]
    ridge = tr.get.edges(adata, "ridge")
    pair = (ridge["source"] == strongest["source"]) & (ridge["target"] == strongest["target"])
    first = demo[1].split("rank by random\n")[1].splitlines()[0].split()
    assert first[:3] == [strongest["source"], strongest["target"], f"{strongest['weight']:+.4f}"]
    assert first[4] == f"{pair.to_numpy().argmax() + 1:,}"


@pytest.mark.parametrize("name", ["pbmc_network.png", "pbmc_history.png", "precision_recall.png", "scores.png"])
def test_figures_show_something(demo, name):
    image = imread(demo[0] / name)
    assert image.shape[1] > 600
    assert (image[..., :3].min(axis=2) < 0.5).mean() > 0.002
    # Nothing is cut off: the border is white.
    border = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge[..., :3] == 1).all() for edge in border)


def test_same_seed_same_numbers(demo, tmp_path):
    assert main(["demo", "--quick", "--seed", "1", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "evaluation.csv").read_bytes() == (demo[0] / "evaluation.csv").read_bytes()
