import re
import runpy
import textwrap
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import sctrellis as tr
from sctrellis._core import checks
from sctrellis._core.rows import Rows


def test_some_quotes_three_and_says_that_there_are_more():
    assert checks.some(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert checks.some(iter("abcd")) == "'a', 'b', 'c', …"
    assert checks.some([1, 2], n=1) == "'1', …"
    assert checks.some([]) == ""


def test_warn_points_at_the_users_file(tmp_path):
    script = tmp_path / "users_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import anndata, numpy
            from sctrellis._core import slots

            x = numpy.random.default_rng(0).poisson(30, (20, 3)).astype("float32")
            rows = slots.read_matrix(anndata.AnnData(x))  # the line a user can change
            """
        )
    )
    with pytest.warns(UserWarning, match="raw counts") as caught:
        runpy.run_path(str(script), run_name="users_script")
    assert [(w.filename, w.lineno) for w in caught] == [(str(script), 6)]


@pytest.mark.parametrize("name", ["__main__", "sctrellis_analysis", "my_sctrellis"])
def test_warn_points_at_scripts_named_like_the_package(tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text("from sctrellis._core import checks\n\n\nchecks.warn('look')\n")
    with pytest.warns(UserWarning, match="look") as caught:
        runpy.run_path(str(script), run_name=name)
    assert (caught[0].filename, caught[0].lineno) == (str(script), 4)


def test_integer():
    assert checks.integer("n", np.int8(3)) == 3
    assert type(checks.integer("n", np.int64(3))) is int
    assert checks.integer("n", 0, minimum=0) == 0
    for value in (True, np.True_, 1.0, "1", None):
        with pytest.raises(TypeError, match=rf"Expected `n` to be an integer, found {re.escape(repr(value))}"):
            checks.integer("n", value)
    with pytest.raises(ValueError, match=r"Expected `n` to be at least 2, found 1\."):
        checks.integer("n", 1, minimum=2)


def test_number():
    assert checks.number("x", np.float32(0.5), low=0, high=1) == 0.5
    assert type(checks.number("x", 1)) is float
    assert checks.number("x", 1, high=1) == 1
    for value in (True, "0.5", None, 1j, np.complex64(1)):
        with pytest.raises(TypeError, match=r"Expected `x` to be a number, found "):
            checks.number("x", value)
    for value in (np.nan, np.inf, -np.inf, np.float32("nan")):
        with pytest.raises(ValueError, match=rf"Expected `x` to be a finite number, found {value}\."):
            checks.number("x", value)


@pytest.mark.parametrize(
    ("value", "options", "interval"),
    [
        (1.5, {"low": 0, "high": 1}, "[0, 1]"),
        (0, {"low": 0, "high": 1, "open_low": True}, "(0, 1]"),
        (1, {"low": 0, "high": 1, "open_high": True}, "[0, 1)"),
        (-2, {"low": 0}, "[0, inf]"),
    ],
)
def test_number_names_the_interval(value, options, interval):
    with pytest.raises(ValueError, match=re.escape(f"Expected `x` to lie in {interval}, found {value}.")):
        checks.number("x", value, **options)


def test_choice():
    assert checks.choice("mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match=r"Expected `mode` to be one of 'a', 'b'; found 'c'\."):
        checks.choice("mode", "c", ("a", "b"))


def test_seed():
    assert checks.seed(0) == 0
    assert checks.seed(2**32 - 1) == 2**32 - 1
    drawn = {checks.seed(None) for _ in range(5)}
    assert len(drawn) > 1
    assert all(0 <= value < 2**32 for value in drawn)
    with pytest.raises(ValueError, match=r"`seed` to be below 2\*\*32 = 4294967296, found 4294967296"):
        checks.seed(2**32)
    with pytest.raises(ValueError, match=r"`seed` to be at least 0, found -1"):
        checks.seed(-1)
    for value in (1.0, "1", True):
        with pytest.raises(TypeError, match="`seed` to be an integer"):
            checks.seed(value)


def test_n_jobs(monkeypatch):
    assert [checks.n_jobs(value) for value in (1, -1, np.int64(3))] == [1, -1, 3]
    monkeypatch.setattr(tr.settings, "n_jobs", 5)
    assert checks.n_jobs(None) == 5
    for value in (0, -2):
        with pytest.raises(ValueError, match=rf"`n_jobs` to be -1 \(all cores\) or at least 1, found {value}"):
            checks.n_jobs(value)
    for value in (1.0, "all", True):
        with pytest.raises(TypeError, match="`n_jobs` to be an integer or None, found"):
            checks.n_jobs(value)


def test_slot_name():
    assert checks.slot_name("key_added", "mine") == "mine"
    for value in ("", "a/b", "/", "a\\b", ".", ".hidden"):
        with pytest.raises(ValueError, match=rf"`key_added` .*without '/'.*found {re.escape(repr(value))}: h5ad"):
            checks.slot_name("key_added", value)
    with pytest.raises(TypeError, match="Expected `key_added` to be a str, found 3"):
        checks.slot_name("key_added", 3)


def test_has_slot():
    checks.has_slot("layer", "a", {"a": 1}, "adata.layers")
    with pytest.raises(KeyError, match=r"`layer`: 'b' not found in `adata.layers`. Available: 'a', 'c'. Do this."):
        checks.has_slot("layer", "b", ["a", "c"], "adata.layers", "Do this.")
    with pytest.raises(KeyError, match=r"Available: none\.\"$"):
        checks.has_slot("layer", "b", [], "adata.layers")


def test_gene_names():
    checks.gene_names(["a", "A", "b"])
    with pytest.raises(ValueError, match=r"has 2 duplicated names \('a', 'b'\).*~adata.var_names.duplicated\(\)"):
        checks.gene_names(["a", "b", "a", "b", "a"])
    for bad in ("", "  ", np.nan, 3):
        with pytest.raises(ValueError, match=r"1 names that are empty or not str \(first at position 1\)"):
            checks.gene_names(["a", bad])


def test_matrix_shape():
    checks.matrix_shape(checks.MIN_CELLS, 2)
    with pytest.raises(ValueError, match=r"at least 10 cells, found 9: too few"):
        checks.matrix_shape(9, 5)
    with pytest.raises(ValueError, match=r"at least 2 genes, found 1"):
        checks.matrix_shape(10, 1)


NAMES = ["g0", "g1", "g2", "g3"]


def _log_values():
    return np.random.default_rng(0).gamma(1.0, 1.0, (20, 4))


def test_expression_accepts_log_values_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.expression(Rows(_log_values()).summary, "X", NAMES)
        # Counts that low may be logged counts of a shallow experiment: nothing is known, nothing is said.
        checks.expression(Rows(np.random.default_rng(0).poisson(3, (20, 4))).summary, "X", NAMES)


def test_expression_nonfinite():
    x = _log_values()
    x[[0, 3], 1], x[5, 3] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"`adata.X` has 3 NaN or infinite values in 2 genes \('g1', 'g3'\)\. Impute"):
        checks.expression(Rows(x).summary, "X", NAMES)


def test_expression_negative():
    x = _log_values()
    x[0, 0] = -2.345678
    with pytest.raises(ValueError, match=r"`adata.layers\['s'\]` has negative values \(minimum -2\.346\).*layer="):
        checks.expression(Rows(x).summary, "layers['s']", NAMES)


def test_expression_counts_and_unlogged():
    counts = np.random.default_rng(0).poisson(30, (20, 4))
    with pytest.warns(UserWarning, match=r"only integers up to \d+: these look like raw counts.*normalize_total"):
        checks.expression(Rows(counts).summary, "X", NAMES)
    with pytest.warns(UserWarning, match=r"values up to .*rarely pass 20\. Run `sc\.pp\.log1p"):
        checks.expression(Rows(counts * 3.3).summary, "X", NAMES)


def test_expression_constant():
    x = _log_values()
    x[:, 2] = 1.25
    with pytest.warns(UserWarning, match=r"1 of 4 genes are constant in `adata.X` \('g2'\).*no edges.*filter_genes"):
        checks.expression(Rows(x).summary, "X", NAMES)
    with pytest.raises(ValueError, match=r"All 4 genes of `adata.X` are constant"):
        checks.expression(Rows(np.full((20, 4), 0.1)).summary, "X", NAMES)


def test_dense_size(monkeypatch):
    checks.dense_size((1000, 1000), "A copy", "Less.")
    with pytest.raises(ValueError, match=r"A copy needs 48\.0 GB \(`sct\w+\.settings\.max_dense_gb` is 8\)\. Less\."):
        checks.dense_size((100_000, 120_000), "A copy", "Less.")
    with pytest.raises(ValueError, match=r"needs 8000000000\.0 GB"):  # the product of the sizes passes 64 bits
        checks.dense_size((10**9, 10**9, 1), "A copy", "Less.", itemsize=8)
    monkeypatch.setattr(tr.settings, "max_dense_gb", 1e-6)
    with pytest.raises(ValueError, match="max_dense_gb` is 1e-06"):
        checks.dense_size((1000, 1000), "A copy", "Less.")


@pytest.mark.parametrize(
    ("names", "var_names", "expected"),
    [
        (
            ["STAT1", "GATA1"],
            ["ENSG00000115415", "ENSG00000102145"],
            r"2 names in `regulators`.*'STAT1', 'GATA1' \(upper-case.*ENSG\w+' \(Ensembl ids\)\. Do both use",
        ),
        (["Gata1"], ["GATA1"], r"'Gata1' \(capitalised symbols.*'GATA1' \(upper.*1 of them match when case is ignored"),
        (["ENSG01.7"], ["ENSG01"], r"1 of them match without the version suffix: strip it"),
        (["7157"], ["TP53"], r"'7157' \(numbers, such as Entrez ids\)"),
        ([], ["TP53"], r"`regulators` is empty\. Pass names as in `adata\.var_names`, such as 'TP53'\."),
    ],
)
def test_no_match_says_which_identifiers_each_side_uses(names, var_names, expected):
    error = checks.no_match("regulators", names, var_names)
    assert isinstance(error, ValueError)
    assert re.search(expected, str(error)), str(error)


def test_existing_file(tmp_path):
    file = tmp_path / "edges.csv"
    with pytest.raises(FileNotFoundError, match=r"`edges`: no file at '.*edges\.csv'\. The working directory is '"):
        checks.existing_file("edges", file)
    file.touch()
    assert checks.existing_file("edges", str(file)) == file
    with pytest.raises(FileNotFoundError, match="`edges`: a folder at"):
        checks.existing_file("edges", tmp_path)


def test_summary_like_objects_are_enough():
    # `expression` reads attributes only, so that streamed summaries can stand in.
    stub = SimpleNamespace(n_nonfinite=np.zeros(1), minimum=0.0, maximum=1.0, integral=False, std=np.ones(1))
    assert checks.expression(stub, "X", ["g"]) is None
