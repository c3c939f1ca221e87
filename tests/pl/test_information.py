import numpy as np
import pytest
from matplotlib import pyplot as plt

import sctrellis as tr
from sctrellis._core import record, slots

PANELS = {"verdict", "size", "power", "learning", "components", "removal", "certificate", "regulators"}


@pytest.fixture(scope="module")
def informed():
    adata = tr.datasets.simulate_grn(80, 40, 8, counts=True, depth=400)
    tr.tl.information(
        adata,
        covariates="depth",
        counts="counts",
        fractions=[0.5, 1],
        r2=[0.2, 0.4],
        n_targets=20,
        n_repeats=2,
        n_sims=2,
        n_draws=1,
    )
    return adata


def test_the_page_has_the_stored_numbers(informed):
    stored = tr.get.record(informed, "information")
    axes = tr.pl.information(informed)
    assert set(axes) == PANELS
    texts = [text.get_text() for text in axes["verdict"].texts]
    assert texts[0].startswith(stored["verdict"]["code"] + ": ")
    assert texts[0].split(": ", 1)[1].replace("\n", " ") == stored["verdict"]["words"]
    listed = " ".join(texts[1].split())
    assert all(" ".join(words.split()) in listed for words in stored["words"])
    dots = axes["size"].collections[1].get_offsets()
    np.testing.assert_allclose(dots[:, 0], stored["size"]["n_eff"])
    curve = stored["curve"]
    rows = curve[(curve["axis"] == "cells") & (curve["measure"] == "power") & (curve["effect"] == 0.4)]
    line = axes["power"].lines[0]
    assert line.get_label() == "0.4"
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("n_cells")["value"].mean())
    assert [line.get_label() for line in axes["learning"].lines] == [
        "explained, cells",
        "explained, depth",
        "halves agree, cells",
        "halves agree, depth",
    ]
    shares = stored["components"]
    shares = shares[(shares["component"] > 0) & (shares["covariate"] == "depth")]["adjusted_r2"]
    names = [label.get_text() for label in axes["components"].get_yticklabels()]
    drawn = axes["components"].images[0].get_array()[names.index("depth")]
    np.testing.assert_allclose(drawn, np.clip(shares, 0, 1))
    widths = [bar.get_width() for bar in axes["removal"].patches]
    removal = stored["removal"]
    np.testing.assert_allclose(widths, np.concatenate([removal["knockoffs"], removal["partial_test"]]))
    failed = [label.get_text().endswith("(fails)") for label in axes["certificate"].get_yticklabels()]
    rows = stored["certificate"]
    assert failed == (~rows[rows["q"] == 0.2]["passes"]).tolist()
    assert axes["regulators"].get_ylabel() == "regulators (of 8)"
    assert len(axes["verdict"].get_figure(root=True).axes) == len(PANELS)


def test_one_panel_in_axes_of_ones_own(informed):
    _, ax = plt.subplots()
    assert tr.pl.information(informed, axes={"power": ax}) == {"power": ax}
    assert ax.get_ylabel() == "power"
    with pytest.raises(KeyError, match="'nothing' not found"):
        tr.pl.information(informed, axes={"nothing": ax})


def test_missing_numbers_are_said_to_be_missing(informed):
    adata = informed.copy()
    entry = adata.uns["information"]
    entry["components"] = entry["components"].iloc[:0]
    entry["removal"]["partial_test"] = np.nan
    axes = tr.pl.information(adata)
    assert [text.get_text() for text in axes["components"].texts] == ["no covariate varies"]
    assert [text.get_text() for text in axes["removal"].texts].count("no answer") == len(entry["removal"])


def test_another_record_is_refused(informed):
    adata = informed.copy()
    entry = record.build("null", adata, params={}, seed=0, slots={})
    slots.write(adata, uns={"other": entry})
    with pytest.raises(ValueError, match="does not say what cells can carry: it is the record of 'null'"):
        tr.pl.information(adata, key="other")
    with pytest.raises(KeyError, match="absent"):
        tr.pl.information(adata, key="absent")
