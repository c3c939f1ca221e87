"""pp.network: every row accounted for, every format the same matrix, every fault named."""

import gzip
import warnings

import anndata as ad
import mudata
import networkx as nx
import numpy as np
import pandas as pd
import pytest

import sctrellis as tr
from sctrellis._core import record, universe

GENES = ["GATA1", "SPI1", "KLF1", "HBB", "HBA1", "CD3E"]
PLAIN = pd.DataFrame(
    {
        "source": ["GATA1", "GATA1", "SPI1", "KLF1", "KLF1"],
        "target": ["HBB", "HBA1", "CD3E", "HBB", "GATA1"],
        "weight": [0.5, 1.0, 2.0, 0.25, 3.0],
        "sign": ["+", "-", "+", "+", "-"],
    }
)


@pytest.fixture
def blood() -> ad.AnnData:
    return ad.AnnData(np.ones((3, len(GENES)), np.float32), var=pd.DataFrame(index=GENES))


def dense(adata, key="network"):
    return pd.DataFrame(adata.varp[key].toarray(), index=GENES, columns=GENES)


def expected(column="weight"):
    matrix = pd.DataFrame(0.0, index=GENES, columns=GENES)
    for row in PLAIN.itertuples():
        matrix.loc[row.source, row.target] = row.weight if column == "weight" else {"+": 1, "-": -1}[row.sign]
    return matrix


def as_graph(frame):
    graph = nx.DiGraph()
    for row in frame.itertuples():
        graph.add_edge(row.source, row.target, weight=row.weight, sign=row.sign)
    return graph


def save(frame, tmp_path, kind):
    path = tmp_path / "edges.dat"
    text = {
        "csv": frame.to_csv(index=False),
        "tsv": frame.to_csv(index=False, sep="\t"),
        "semicolon": frame.to_csv(index=False, sep=";"),
        "bom": "\ufeff" + frame.to_csv(index=False),
        "quoted": frame.to_csv(index=False, quoting=1),
        "crlf": frame.to_csv(index=False, lineterminator="\r\n"),
        "numbered": frame.to_csv(),
        "gz": frame.to_csv(index=False),
    }
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "gz":
        path.write_bytes(gzip.compress(text["gz"].encode(), mtime=0))
    else:
        path.write_bytes(text[kind].encode())
    return path


@pytest.mark.parametrize(
    "kind",
    ["frame", "graph", "csv", "tsv", "semicolon", "bom", "quoted", "crlf", "numbered", "gz", "parquet", "indexed"],
)
def test_every_format_gives_the_same_matrix(blood, tmp_path, kind):
    edges = {"frame": PLAIN, "graph": as_graph(PLAIN), "indexed": PLAIN.set_index(["source", "target"])}.get(kind)
    tr.pp.network(blood, save(PLAIN, tmp_path, kind) if edges is None else edges)
    network = blood.varp["network"]
    assert network.format == "csr"
    assert network.dtype == np.float32
    pd.testing.assert_frame_equal(dense(blood).astype(float), expected())
    assert blood.varp["network_sign"].dtype == np.int8
    pd.testing.assert_frame_equal(dense(blood, "network_sign").astype(float), expected("sign"))


@pytest.mark.parametrize("names", [("Gene1", "Gene2"), ("TF", "Target"), ("regulator", "gene"), ("tf", "target_gene")])
def test_usual_column_names(blood, names):
    tr.pp.network(blood, PLAIN.rename(columns={"source": names[0], "target": names[1]}))
    pd.testing.assert_frame_equal(dense(blood).astype(float), expected())


@pytest.mark.parametrize("columns", [{"source": "From here", "target": "to_there"}, {"source": 0, "target": 1}])
def test_named_or_numbered_columns(blood, columns):
    tr.pp.network(blood, PLAIN.rename(columns={"source": "from here", "target": "to there"}), **columns)
    pd.testing.assert_frame_equal(dense(blood).astype(float), expected())


@pytest.mark.parametrize("header", [False, True])
def test_a_file_without_header_by_positions(blood, tmp_path, header):
    path = tmp_path / "trrust.tsv"
    frame = PLAIN.assign(sign=PLAIN["sign"].map({"+": "Activation", "-": "Repression"}), pmid="1;2")
    frame[["source", "target", "sign", "pmid"]].to_csv(path, sep="\t", header=header, index=False)
    tr.pp.network(blood, path, source=0, target=1, sign=2)
    assert blood.uns["network"]["counts"]["read"] == 5
    pd.testing.assert_frame_equal(dense(blood, "network_sign").astype(float), expected("sign"))


def test_an_undirected_graph_counts_in_both_directions(blood):
    graph = nx.Graph([("GATA1", "HBB"), ("SPI1", "SPI1"), ("SPI1", "KLF1")])
    tr.pp.network(blood, graph)
    matrix = dense(blood)
    assert matrix.equals(matrix.T)
    assert (
        blood.uns["network"]["counts"] | {"edges": 4, "self_edges": 1, "duplicates": 0}
        == blood.uns["network"]["counts"]
    )


def test_counts_of_a_messy_table(blood):
    rows = [
        ("GATA1", "HBB", 1.0, 1),  # kept
        ("GATA1", "HBB", 3.0, 1),  # repeat, larger: this one is kept
        (" GATA1", "HBB ", 2.0, 1),  # repeat with blanks
        ("gata1", "HBA1", 1.0, 1),  # kept, by case
        ("EKLF", "HBB", 4.0, 1),  # kept, by alias
        ("SPI1", "CD3E", 9.0, 0),  # a known non-edge, whatever its weight
        ("SPI1", "SPI1", 1.0, 1),  # self
        ("GATA1", "gata1", 1.0, 1),  # self, seen through the case
        ("XXX", "XXX", 1.0, 1),  # self among unknown genes
        ("GATA1", "XXX", 1.0, 1),  # unknown
        ("YYY", "HBB", 1.0, 1),  # unknown
        ("YYY", "XXX", 1.0, 1),  # both unknown, and not the same
        ("SPI1", None, 1.0, 1),  # blank
        ("", "HBB", 1.0, 1),  # blank
        ("SPI1", "HBB", 0.0, 1),  # says nothing
    ]
    table = pd.DataFrame(rows, columns=["tf", "target", "weight", "label"])
    tr.pp.network(blood, table, match_case=False, aliases={"EKLF": "KLF1"})
    assert record.read(blood, "network")["counts"] == {
        "read": 15,
        "blank": 2,
        "zero_weight": 1,
        "self_edges": 3,
        "unknown_edges": 3,
        "duplicates": 2,
        "edges": 3,
        "non_edges": 1,
        "regulators": 2,
        "targets": 2,
        "unknown_genes": 2,
        "alias_matches": 1,
        "case_matches": 1,
        "case_mismatches": 0,
        "activations": 0,
        "repressions": 0,
    }
    matrix = dense(blood)
    assert matrix.loc["GATA1", "HBB"] == 3
    assert matrix.loc["KLF1", "HBB"] == 4
    assert matrix.loc["GATA1", "HBA1"] == 1
    assert matrix.loc["SPI1", "CD3E"] == -1
    assert blood.varp["network"].nnz == 4
    assert "network_sign" not in blood.varp


def test_random_tables_equal_a_loop(blood):
    rng = np.random.default_rng(0)
    names = np.array([*GENES, "unknown"])
    for _ in range(20):
        table = pd.DataFrame(
            {
                "source": rng.choice(names, 40),
                "target": rng.choice(names, 40),
                "weight": rng.choice([-3.0, -1.0, 0.5, 1.0, 3.0], 40),
            }
        )
        best: dict = {}
        for row in table.itertuples():
            if row.source != row.target and "unknown" not in (row.source, row.target):
                best.setdefault((row.source, row.target), []).append(row.weight)
        tr.pp.network(blood, table)
        assert blood.varp["network"].nnz == len(best)
        for (source, target), weights in best.items():
            largest = max(map(abs, weights))
            signs = {np.sign(w) for w in weights if abs(w) == largest}
            assert dense(blood).loc[source, target] == largest
            assert dense(blood, "network_sign").loc[source, target] == (signs.pop() if len(signs) == 1 else 0)
        counts = blood.uns["network"]["counts"]
        left_out = sum(counts[k] for k in ("blank", "zero_weight", "self_edges", "unknown_edges", "duplicates"))
        assert counts["read"] == left_out + counts["edges"] + counts["non_edges"]


def test_order_of_rows_does_not_matter(blood):
    tr.pp.network(blood, PLAIN)
    tr.pp.network(blood, PLAIN.sample(frac=1, random_state=1), key_added="other")
    assert (blood.varp["network"] != blood.varp["other"]).nnz == 0


def test_words_for_signs(blood):
    words = ["Activation", "Repression", "Unknown", "inhibition", 1]
    tr.pp.network(blood, PLAIN.drop(columns="weight").assign(sign=words))
    signs = dense(blood, "network_sign")
    assert [signs.loc[s, t] for s, t in zip(PLAIN["source"], PLAIN["target"], strict=True)] == [1, -1, 0, -1, 1]
    assert blood.varp["network_sign"].nnz == 4


def test_a_column_called_type_that_holds_no_signs_is_not_read(blood):
    tr.pp.network(blood, PLAIN.drop(columns="sign").assign(type="ChIP"))
    assert "network_sign" not in blood.varp


def test_signs_of_an_earlier_network_do_not_stay(blood):
    tr.pp.network(blood, PLAIN)
    tr.pp.network(blood, PLAIN.drop(columns="sign"))
    assert blood.varp["network_sign"].nnz == 0


def test_labels_may_be_booleans_or_text(blood):
    labels = pd.DataFrame({"source": ["GATA1", "SPI1"], "target": ["HBB", "HBB"]})
    for values in ([True, False], ["1", "0"], ["True", "False"], [1.0, 0.0]):
        tr.pp.network(blood, labels.assign(label=values))
        assert dense(blood)["HBB"].tolist() == [1, -1, 0, 0, 0, 0]


def test_weight_zero_is_left_out_with_the_remedy(blood):
    with pytest.warns(UserWarning, match=r"1 of 5 rows of `edges` have weight 0.*`label="):
        tr.pp.network(blood, PLAIN.assign(weight=[1, 1, 0, 1, 1]))
    assert blood.varp["network"].nnz == 4


def test_swapped_columns_are_noticed(blood):
    blood.var["is_regulator"] = [True, True, True, False, False, False]
    right = pd.DataFrame({"source": ["GATA1", "SPI1", "KLF1"], "target": ["HBB", "CD3E", "HBA1"]})
    tr.pp.network(blood, right)
    with pytest.warns(UserWarning, match="100% of the targets .* only 0% of the sources.*swapped"):
        tr.pp.network(blood, right, source="target", target="source", key_added="wrong")


def test_case_mismatches_are_counted_and_told(blood):
    table = PLAIN.assign(source=PLAIN["source"].replace("KLF1", "Klf1"))
    with pytest.warns(UserWarning, match=r"1 names in `edges` differ.*'Klf1'.*`match_case=False`"):
        tr.pp.network(blood, table)
    counts = blood.uns["network"]["counts"]
    assert (counts["case_mismatches"], counts["unknown_edges"]) == (1, 2)
    tr.pp.network(blood, table, match_case=False, key_added="folded")
    pd.testing.assert_frame_equal(dense(blood, "folded").astype(float), expected())


def test_new_edges_make_old_folds_stale(blood):
    tr.pp.network(blood, PLAIN)
    tr.pp.split_edges(blood, test_frac=0.5, val_frac=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tr.pp.network(blood, PLAIN)  # the same edges: the folds still hold
    with pytest.warns(UserWarning, match=r"network_fold.*Run `sctrellis.pp.split_edges"):
        tr.pp.network(blood, PLAIN[:4])


def test_copy_view_modality_and_round_trips(blood, tmp_path):
    copied = tr.pp.network(blood, PLAIN, copy=True, key_added="known")
    assert not blood.varp
    assert not blood.uns
    assert copied.varp["known"].nnz == 5
    view = blood[:, ["HBB", "GATA1"]]
    tr.pp.network(view, PLAIN)
    assert view.varp["network"].toarray().tolist() == [[0, 0], [0.5, 0]]
    assert not blood.varp
    mdata = mudata.MuData({"rna": blood.copy()})
    assert tr.pp.network(mdata, PLAIN, mod="rna", copy=True)["rna"].varp["network"].nnz == 5
    assert not mdata["rna"].varp
    copied.write_h5ad(tmp_path / "a.h5ad")
    copied.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for key in ("known", "known_sign"):
            assert (again.varp[key] != copied.varp[key]).nnz == 0
            assert again.varp[key].dtype == copied.varp[key].dtype
        assert record.read(again, "known") == record.read(copied, "known")
    assert str(tmp_path) not in str(copied.uns["known"])


@pytest.mark.parametrize(
    ("edges", "options", "error", "message"),
    [
        (
            PLAIN.rename(columns={"source": "a"}),
            {},
            ValueError,
            r"no column for the regulators.*'a', 'target'.*`source=0",
        ),
        (PLAIN.rename(columns={"target": "b"}), {}, ValueError, "no column for the targets"),
        (PLAIN, {"source": "tf"}, ValueError, r"`source`: column 'tf' not found in `edges`. Columns found: 'source'"),
        (PLAIN, {"source": 9}, ValueError, "`source`: column 9 not found"),
        (PLAIN, {"source": True}, TypeError, "`source` to be the name or the position"),
        (PLAIN, {"source": "target"}, ValueError, "are the same column"),
        (PLAIN.assign(weight=[1, 2, np.nan, 4, 5]), {}, ValueError, r"'weight'.*found 'nan' in row 3 \(1 in all\)"),
        (PLAIN.assign(weight=[1, 2, np.inf, 4, 5]), {}, ValueError, "'inf' in row 3"),
        (PLAIN.assign(weight=list("ABCDE")), {}, ValueError, r"finite numbers, found 'A' in row 1 \(5 in all\)"),
        (PLAIN.assign(weight="0,5"), {}, ValueError, "Decimal commas"),
        (PLAIN.assign(label=[1, 0, -1, 1, 1]), {}, ValueError, r"to be 1 \(edge\) or 0.*found '-1'.*`sign="),
        (PLAIN.assign(sign="maybe"), {}, ValueError, r"the sign, to hold '\+' and '-'.*'maybe'"),
        (PLAIN.assign(kind="ChIP"), {"sign": "kind"}, ValueError, "'ChIP'"),
        (PLAIN.assign(weight=-1.0), {}, ValueError, "3 rows with a negative weight and a positive sign"),
        (PLAIN[:0], {}, ValueError, "`edges` holds no edge"),
        (nx.DiGraph(), {}, ValueError, "`edges` holds no edge"),
        (PLAIN.assign(source="", target=None), {}, ValueError, "names no genes"),
        (PLAIN.assign(target=PLAIN["source"]), {}, ValueError, "joins two different genes.*5 self edges"),
        (PLAIN.assign(source="ENSG0001"), {}, ValueError, r"`edges \(source\)`.*Ensembl ids.*GATA1"),
        (PLAIN.assign(target=PLAIN["target"].str.lower()), {}, ValueError, r"`edges \(target\)`.*match_case=False"),
        ([("GATA1", "HBB")], {}, TypeError, r"found list. Make one with `pandas.DataFrame\(edges"),
        (3, {}, TypeError, "found int"),
        ("nowhere.csv", {}, FileNotFoundError, "`edges`: no file at 'nowhere.csv'"),
        (PLAIN, {"key_added": ""}, ValueError, "`key_added`"),
    ],
)
def test_bad_input_says_what_to_do_and_changes_nothing(blood, edges, options, error, message):
    with pytest.raises(error, match=message):
        tr.pp.network(blood, edges, **options)
    assert not blood.varp
    assert not blood.uns


def test_conflicting_labels_are_named(blood):
    table = pd.DataFrame({"source": ["GATA1"] * 3, "target": ["HBB", "HBB", "HBA1"], "label": [1, 0, 1]})
    with pytest.raises(ValueError, match=r"labels 1 pairs both .* \('GATA1 -> HBB'\)"):
        tr.pp.network(blood, table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'edges.csv' is empty"),
        (b"source,target\n", "'edges.csv' holds a header and no rows"),
        (b"source target\nGATA1 HBB\n", "Columns found: 'source target'"),
        (b"AATF\tBAX\tRepression\t1\nAATF\tMYC\tActivation\t2\n", "`source=0, target=1`"),
        (b"source,target\nGATA1,HBB,1\nGATA1,HBA1,2\n", "'edges.csv' have different numbers of columns"),
        (PLAIN.to_csv(index=False).encode("utf-16"), "'edges.csv' looks like UTF-16"),
        (gzip.compress(PLAIN.to_csv().encode(), mtime=0)[:-12], "'edges.csv' is cut short"),
        (b"PAR1 and nonsense", "parquet file 'edges.csv' cannot be read"),
        (b"\x89HDF\r\n", "'edges.csv' is an HDF5 file"),
    ],
)
def test_bad_files_are_named(blood, tmp_path, content, message):
    path = tmp_path / "edges.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tr.pp.network(blood, path)


def test_text_with_a_lone_quotation_mark(blood, tmp_path):
    path = tmp_path / "edges.tsv"
    path.write_text('source\ttarget\tnote\nGATA1\tHBB\t"so-called\nGATA1\tHBA1\tplain\n')
    tr.pp.network(blood, path)
    assert blood.uns["network"]["counts"]["edges"] == 2


# kind, cell, size: genes, regulators, edges, density (three figures), as published for BEELINE's reference networks
DENSITIES = [
    ("Specific", "mDC", "500", 20, 756, 0.085),
    ("Specific", "mDC", "1000", 21, 1193, 0.082),
    ("Specific", "mESC", "500", 88, 29613, 0.345),
    ("Non-Specific", "mDC", "500", 250, 3067, 0.019),
    ("Non-Specific", "mDC", "1000", 254, 3918, 0.016),
    ("Non-Specific", "mESC", "500", 516, 6893, 0.015),
    ("STRING", "mDC", "500", 264, 4815, 0.038),
    ("STRING", "mDC", "1000", 273, 5898, 0.032),
    ("STRING", "mESC", "500", 495, 7762, 0.024),
    ("Lofgof", "mESC", "500", 34, 4169, 0.158),
]


@pytest.mark.data
@pytest.mark.parametrize(("kind", "cell", "size", "regulators", "edges", "density"), DENSITIES)
def test_densities_of_beeline(data_dir, kind, cell, size, regulators, edges, density):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / f"{cell}.h5ad")
    tr.pp.network(adata, data_dir / "beeline" / "networks" / kind / cell / f"TFs+{size}" / "BL--network.csv.gz")
    counts = adata.uns["network"]["counts"]
    assert (counts["regulators"], counts["edges"], counts["unknown_edges"]) == (regulators, edges, 0)
    candidates = universe.pairs(adata.varp["network"], None, "beeline_tf")
    assert edges / candidates.nnz == pytest.approx(density, abs=0.001)


@pytest.mark.data
def test_published_priors(data_dir):
    adata = ad.read_h5ad(data_dir / "beeline" / "expression" / "mESC.h5ad")
    trrust = data_dir / "priors" / "trrust_rawdata.mouse.tsv.gz"
    tr.pp.network(adata, trrust, source=0, target=1, sign=2, match_case=False)
    table = pd.read_csv(trrust, sep="\t", header=None).iloc[:, :2].apply(lambda column: column.str.upper())
    table = table[table.isin(set(adata.var_names)).all(axis=1) & (table[0] != table[1])].drop_duplicates()
    assert adata.uns["network"]["counts"]["edges"] == len(table)
    tr.pp.network(adata, data_dir / "priors" / "dorothea_mm.csv.gz", match_case=False, key_added="dorothea")
    assert adata.uns["dorothea"]["counts"]["repressions"] > 100
    with pytest.raises(ValueError, match="found 'E' in row 1"):
        tr.pp.network(adata, data_dir / "priors" / "dorothea_mm.csv.gz", weight="confidence", match_case=False)
