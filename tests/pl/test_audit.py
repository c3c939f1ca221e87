import matplotlib.pyplot as plt
import pytest

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture
def adata():
    adata = tr.datasets.simulate_grn(100, 60, 15, density=0.2, seed=1)
    tr.tl.baseline(adata, "ridge")
    tr.tl.audit(adata, "ridge", network="truth", n_boot=50, n_perm=99, budget=0, progress=False)
    return adata


def told(ax):
    """Return the text below a panel."""
    return " ".join(text.get_text() for other in ax.figure.axes for text in other.texts).replace("\n", " ")


def test_each_panel_has_its_question_and_what_was_found(adata):
    # A record of the cells is used again: made small here.
    tr.tl.information(adata, fractions=[0.5, 1], r2=[0.2, 0.4], n_targets=15, n_repeats=1, n_sims=2, n_draws=2)
    table = tr.tl.audit(adata, "ridge", network="truth", n_boot=50, n_perm=99, budget=None, progress=False)
    axes = tr.pl.audit(adata, "ridge")
    for row in table.itertuples():
        assert (
            axes[row.part]
            .get_title(loc="left")
            .endswith({"yes": "– yes", "no": "– no"}.get(row.passed, "– not known" if row.found else "– not asked"))
        )
        words = row.found or row.state
        assert words[1:40] in told(axes[row.part])
    assert axes["null"].patches
    assert not axes["calibration"].has_data()  # no folds
    page = axes["null"].get_figure(root=True)
    passed = sum(table["passed"] == "yes")
    assert page.get_suptitle() == f"ridge: {passed} of {sum(table['passed'] != '')} questions answered with yes"
    plt.close(page)


def test_what_is_open_is_said_and_nothing_is_drawn(adata):
    axes = tr.pl.audit(adata, "ridge")
    for part, ax in axes.items():
        assert not ax.has_data()
        assert ax.get_title(loc="left").endswith("– not asked")
        reason = "no folds" if part == "calibration" else "budget of 0 s"
        assert reason in told(ax)


def test_what_was_not_audited_is_no_page(adata):
    slots.write(adata, varp={"ridge": adata.varp["ridge"] * 2})
    with pytest.raises(ValueError, match="not audited, or has other scores"):
        tr.pl.audit(adata, "ridge")
    with pytest.raises(KeyError, match="absent"):
        tr.pl.audit(adata, "absent")
