"""pp.multiome: pairing, coordinates, counts, and every bad input."""

import gzip
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from helpers import content, csr_with_zeros
from scipy import sparse

import sctrellis as tr
from sctrellis.pp import _coordinates as coordinates

GENES = ["GATA1", "SPI1", "KLF1", "TAL1"]
PEAKS = ["chr1:100-600", "chr1:5000-5500", "chr2:100-900", "chrUn_KI270742v1:7-90", "chrX:50-60"]
BED = """chr1 1000 3000 GATA1 0 +
chr1 4000 9000 SPI1 0 -
chr2 500 2000 KLF1 0 +
chrX 10 80 TAL1 0 -
""".replace(" ", "\t")
TSS = [1000, 8999, 500, 79]


def counts(n_obs, n_vars, seed=0):
    matrix = np.random.default_rng(seed).poisson(1.5, size=(n_obs, n_vars)).astype(np.float32)
    matrix[0, 0] = 3
    return matrix


def frame(prefix="cell", n=12, suffix=""):
    return pd.DataFrame(index=[f"{prefix}{i}{suffix}" for i in range(n)])


@pytest.fixture
def rna():
    adata = ad.AnnData(sparse.csr_matrix(counts(12, 4)), obs=frame(), var=pd.DataFrame(index=GENES))
    adata.obs["cell_type"] = pd.Categorical(["a", "b"] * 6)
    adata.obsm["X_pca"] = np.arange(24.0).reshape(12, 2)
    adata.uns["note"] = "kept"
    return adata


@pytest.fixture
def atac():
    return ad.AnnData(sparse.csr_matrix(counts(12, 5, 1)), obs=frame(), var=pd.DataFrame(index=PEAKS))


@pytest.fixture
def bed(tmp_path):
    path = tmp_path / "genes.bed"
    path.write_text(BED)
    return path


def test_values_of_both(rna, atac, bed):
    before = content(rna), content(atac)
    mdata = tr.pp.multiome(rna, atac, genes=bed)
    assert (content(rna), content(atac)) == before
    expected = rna.copy()
    sc.pp.normalize_total(expected, target_sum=1e5)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(mdata["rna"].X.toarray(), expected.X.toarray(), rtol=1e-5)
    np.testing.assert_array_equal(mdata["rna"].layers["counts"].toarray(), rna.X.toarray())
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), rna_open(atac))
    np.testing.assert_array_equal(mdata["atac"].layers["counts"].toarray(), atac.X.toarray())
    for matrix in (mdata["rna"].X, mdata["atac"].X, mdata["rna"].layers["counts"], mdata["atac"].layers["counts"]):
        assert matrix.format == "csr"
        assert matrix.dtype == np.float32
    assert mdata["rna"].var["tss"].tolist() == TSS
    assert mdata["rna"].var["strand"].tolist() == ["+", "-", "+", "-"]
    assert mdata["atac"].var["chrom"].tolist() == ["chr1", "chr1", "chr2", "chrUn_KI270742v1", "chrX"]
    assert mdata["atac"].var[["start", "end"]].to_numpy().tolist()[3] == [7, 90]
    np.testing.assert_allclose(mdata["atac"].var["open_fraction"], rna_open(atac).mean(axis=0))
    assert mdata["rna"].obs["cell_type"].equals(rna.obs["cell_type"])
    np.testing.assert_array_equal(mdata["rna"].obsm["X_pca"], rna.obsm["X_pca"])
    assert mdata["rna"].uns["note"] == "kept"


def rna_open(atac):
    x = atac.X.toarray() if sparse.issparse(atac.X) else atac.X
    return (x > 0).astype(np.float32)


@pytest.mark.parametrize("container", [np.asarray, sparse.csc_matrix, sparse.csr_array, csr_with_zeros])
def test_containers(rna, atac, bed, container):
    expected = tr.pp.multiome(rna, atac, genes=bed)
    rna.X, atac.X = container(rna.X.toarray()), container(atac.X.toarray())
    found = tr.pp.multiome(rna, atac, genes=bed)
    for mod in ("rna", "atac"):
        assert content(found[mod]) == content(expected[mod])


def test_backed_and_views(rna, atac, bed, tmp_path):
    expected = tr.pp.multiome(rna[2:9].copy(), atac[2:9].copy(), genes=bed)
    atac.write_h5ad(tmp_path / "atac.h5ad")
    backed = ad.read_h5ad(tmp_path / "atac.h5ad", backed="r")
    found = tr.pp.multiome(rna[2:9], backed[2:9], genes=bed)
    np.testing.assert_array_equal(found["atac"].X.toarray(), expected["atac"].X.toarray())
    np.testing.assert_array_equal(found["rna"].X.toarray(), expected["rna"].X.toarray())
    backed.file.close()


def test_cells_are_paired_by_name(rna, atac, bed):
    expected = tr.pp.multiome(rna, atac, genes=bed)
    order = np.random.default_rng(0).permutation(12)
    found = tr.pp.multiome(rna, atac[order], genes=bed)
    assert content(found["atac"]) == content(expected["atac"])
    some = rna[[8, 1, 2, 3, 4, 5, 6, 7, 0]]
    with pytest.warns(UserWarning, match="7 cells are in both; 2 of `rna` and 3 of `atac` have no partner"):
        part = tr.pp.multiome(some, atac[[11, 10, 9, 8, 5, 4, 3, 2, 1, 0]], genes=bed)
    assert part.obs_names.tolist() == [f"cell{i}" for i in (8, 1, 2, 3, 4, 5, 0)]
    for mod in ("rna", "atac"):
        np.testing.assert_array_equal(part[mod].X.toarray(), expected[mod][part.obs_names].X.toarray())
        assert part[mod].obs_names.equals(part.obs_names)


def test_counts_in_a_layer_and_normalised_values(rna, atac, bed):
    rna.layers["counts"] = rna.X.copy()
    rna.X = (rna.X * 0.37).log1p()
    atac.layers["counts"] = atac.X.copy()
    atac.X = atac.X * 0.3
    mdata = tr.pp.multiome(rna, atac, genes=bed)
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), rna.X.toarray())
    np.testing.assert_array_equal(mdata["rna"].layers["counts"].toarray(), rna.layers["counts"].toarray())
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), rna_open(atac))
    np.testing.assert_array_equal(mdata["atac"].layers["counts"].toarray(), atac.layers["counts"].toarray())


def test_options_of_the_values(rna, atac, bed):
    plain = tr.pp.multiome(rna, atac, genes=bed, target_sum=None)
    np.testing.assert_array_equal(plain["rna"].X.toarray(), rna.X.toarray())
    scaled = tr.pp.multiome(rna, atac, genes=bed, target_sum=50)
    np.testing.assert_allclose(np.expm1(scaled["rna"].X.toarray()).sum(axis=1), 50, rtol=1e-5)
    atac.X = (atac.X / atac.X.max()).astype(np.float32)
    soft = tr.pp.multiome(rna, atac, genes=bed, binarize=False)
    np.testing.assert_array_equal(soft["atac"].X.toarray(), atac.X.toarray())
    assert "counts" not in soft["atac"].layers


def test_rarely_open_peaks_are_dropped(rna, atac, bed):
    x = np.zeros((12, 5), np.float32)
    x[:, 0], x[:3, 1], x[:2, 2], x[:1, 3] = 1, 1, 1, 1
    atac.X = sparse.csr_matrix(x)
    atac.varm["loadings"] = np.arange(5.0)[:, None]
    assert tr.pp.multiome(rna, atac, genes=bed)["atac"].n_vars == 4  # never open
    assert tr.pp.multiome(rna, atac, genes=bed, min_open=0)["atac"].n_vars == 4
    mdata = tr.pp.multiome(rna, atac, genes=bed, min_open=2 / 12)
    assert mdata["atac"].var_names.tolist() == PEAKS[:3]
    assert mdata["atac"].varm["loadings"].ravel().tolist() == [0, 1, 2]
    assert mdata.uns["multiome"]["counts"]["peaks_rarely_open"] == 2
    assert "counts" not in mdata["atac"].layers  # binary already
    with pytest.raises(ValueError, match=r"No peak is open in at least 0.5 of the 12 cells.*is in 0.25\)"):
        tr.pp.multiome(rna, atac[:, 1:], genes=bed, min_open=0.5)


# One object of both


def test_10x_and_muon(rna, atac, bed):
    expected = tr.pp.multiome(rna, atac, genes=bed)
    both = ad.concat([rna, atac], axis=1, merge="same")
    both.var["feature_types"] = ["Gene Expression"] * 4 + ["Peaks"] * 5
    from_10x = tr.pp.multiome(both, genes=bed)
    with md.set_options(pull_on_update=False):
        from_muon = tr.pp.multiome(md.MuData({"rna": rna, "atac": atac}), genes=bed)
    for found in (from_10x, from_muon):
        for mod in ("rna", "atac"):
            np.testing.assert_array_equal(found[mod].X.toarray(), expected[mod].X.toarray())
            pd.testing.assert_frame_equal(
                found[mod].var[["chrom", "start", "end"]], expected[mod].var[["chrom", "start", "end"]]
            )
    with pytest.raises(ValueError, match="found 'Gene Expression'. Pass ATAC as the second argument"):
        tr.pp.multiome(both[:, :4], genes=bed)
    with pytest.raises(ValueError, match="no such column"):
        tr.pp.multiome(rna, genes=bed)


def test_interval_of_10x_files(rna, atac):
    rna.var["interval"] = ["chr1:1000-1200", "chr1:8000-8100", "NA", "chrX:10-80"]
    atac.var["interval"] = PEAKS
    atac.var_names = [f"peak{i}" for i in range(5)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mdata = tr.pp.multiome(rna, atac)
    texts = [str(w.message) for w in caught]
    assert any("1 of 4 genes have no coordinates" in text and "'KLF1'" in text for text in texts)
    assert any("3 genes have no strand: their TSS is taken as the middle" in text for text in texts)
    assert mdata["rna"].var["tss"].tolist() == [1100, 8050, -1, 45]
    assert mdata["atac"].var["start"].tolist() == [100, 5000, 100, 7, 50]


# Coordinates of peaks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chr1:100-600", ("chr1", 100, 600)),
        ("chr1-100-600", ("chr1", 100, 600)),
        ("chr1_100_600", ("chr1", 100, 600)),
        ("chr1:1,000-2,600", ("chr1", 1000, 2600)),
        ("1:100-600", ("1", 100, 600)),
        ("chrUn_KI270742v1-5-9", ("chrUn_KI270742v1", 5, 9)),
        ("chrUn_KI270742v1_5_9", ("chrUn_KI270742v1", 5, 9)),
        ("chr6_GL000250v2_alt:5-9", ("chr6_GL000250v2_alt", 5, 9)),
        ("HLA-A*01:01:5-9", ("HLA-A*01:01", 5, 9)),
        ("GL000194.1:55758-56597", ("GL000194.1", 55758, 56597)),
        ("chr1.100.600", ("chr1", 100, 600)),
        ("peak_17", ("", -1, -1)),
        ("chr1:100", ("", -1, -1)),
        ("chr1:a-b", ("", -1, -1)),
    ],
)
def test_names_of_peaks(name, expected):
    table, formats = coordinates.parse_peaks(pd.DataFrame(index=[name]))
    assert tuple(table.iloc[0]) == expected
    assert len(formats) == (expected[0] != "")


def test_columns_win_over_names(atac):
    atac.var["seqnames"], atac.var["Start"], atac.var["END"] = (
        "chr9",
        [1, 2, 3, 4, None],
        ["11", "12", "13", "14", "15"],
    )
    table, _ = coordinates.parse_peaks(atac.var)
    assert table["chrom"].tolist() == ["chr9"] * 4 + [""]
    assert table["end"].tolist() == [11, 12, 13, 14, -1]


def test_mixed_and_missing_peaks(rna, atac, bed):
    atac.var_names = ["chr1:100-600", "chr1-5000-5500", "chr2_100_900", "blacklist", "chrX:50-60"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mdata = tr.pp.multiome(rna, atac, genes=bed)
    texts = [str(w.message) for w in caught]
    assert any("several formats (chrom:start-end, chrom-start-end, chrom_start_end)" in text for text in texts)
    assert any("1 of 5 peaks have no coordinates and are left out ('blacklist')" in text for text in texts)
    assert mdata["atac"].n_vars == 4
    assert mdata.uns["multiome"]["counts"]["peaks_without_coordinates"] == 1
    atac.var_names = [f"p{i}" for i in range(5)]
    with pytest.raises(ValueError, match="None of the 5 peaks has coordinates.*put 'chrom', 'start' and 'end'"):
        tr.pp.multiome(rna, atac, genes=bed)
    atac.var_names = ["chr1:100-600", "chr1:90-90", *PEAKS[2:]]
    with pytest.raises(ValueError, match="1 peaks end where they start or before it.*'chr1:90-90', 90 to 90"):
        tr.pp.multiome(rna, atac, genes=bed)


# Coordinates of genes


def tss_of(table, names=tuple(GENES), **options):
    located = coordinates.locate_genes(table, pd.Index(names), **{"match_case": True, "aliases": None} | options)
    return located["tss"].tolist()


def test_bed_files(tmp_path, bed):
    assert tss_of(bed) == TSS
    with gzip.open(tmp_path / "genes.bed.gz", "wt") as file:
        file.write("#chr\tstart\tend\tname\tscore\tstrand\tEnsembl_ID\tgene_type\n")
        file.writelines(f"{line}\tENSG{i}\tprotein_coding\n" for i, line in enumerate(BED.splitlines()))
    assert tss_of(tmp_path / "genes.bed.gz") == TSS
    assert tss_of(tmp_path / "genes.bed.gz", ["ENSG2", "SPI1", "ENSG0"]) == [500, 8999, 1000]


def gtf(attributes, feature="gene"):
    lines = ["##description: test", "#!genome-build"]
    for line, attribute in zip(BED.splitlines(), attributes, strict=True):
        chrom, start, end, _, _, strand = line.split("\t")
        first = [chrom.removeprefix("chr"), "HAVANA", feature, str(int(start) + 1), end, ".", strand, ".", attribute]
        lines += ["\t".join(first), "\t".join([*first[:2], "CDS", first[3], first[3], *first[5:]])]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("feature", ["gene", "transcript", "exon"])
def test_gtf_files(tmp_path, feature):
    path = tmp_path / "genes.gtf.gz"
    text = gtf([f'gene_id "ENSG000000{i}.{i + 4}"; gene_name "{name}";' for i, name in enumerate(GENES)], feature)
    path.write_bytes(gzip.compress(text.encode()))
    assert tss_of(path) == TSS
    # Ids with and without a version, on either side.
    assert tss_of(path, ["ENSG0000001.5", "ENSG0000000", "ENSG0000002.17"]) == [8999, 1000, 500]


def test_gff3_files(tmp_path):
    path = tmp_path / "genes.gff3"
    path.write_text(gtf([f"ID=gene:ENSG000{i};Name={name};biotype=x" for i, name in enumerate(GENES)]))
    assert tss_of(path) == TSS
    assert tss_of(path, ["ENSG0002", "TAL1"]) == [500, 79]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "CDS" in line))
    with pytest.raises(ValueError, match="'genes.gff3' has no line of a gene, transcript or exon"):
        tss_of(path)


def test_frames():
    table = pd.DataFrame([line.split("\t") for line in BED.splitlines()])
    table.columns = ["Chromosome", "Start", "End", "gene_name", "Score", "Strand"]  # as pyranges has them
    assert tss_of(table) == TSS
    assert tss_of(table.set_index("gene_name").rename_axis(None)) == TSS
    biomart = table.rename(columns={"Start": "Gene start (bp)", "End": "Gene end (bp)", "gene_name": "Gene name"})
    biomart["Strand"] = biomart["Strand"].map({"+": 1, "-": -1})
    assert tss_of(biomart) == TSS
    assert tss_of(table.assign(tss=[7, 8, 9, 10])) == [7, 8, 9, 10]
    assert tss_of(table[["Chromosome", "gene_name"]].assign(TSS=[7, 8, 9, 10])) == [7, 8, 9, 10]


def test_names_that_differ_in_case_or_are_aliases():
    table = pd.DataFrame([line.split("\t") for line in BED.splitlines()], columns=coordinates._BED)
    assert tss_of(table, ["Gata1", "SPI1"]) == [-1, 8999]
    assert tss_of(table, ["Gata1", "SPI1"], match_case=False) == [1000, 8999]
    assert tss_of(table, ["ERYF1", "SPI1"], aliases={"GATA1": "ERYF1"}) == [1000, 8999]


def test_several_rows_of_a_gene():
    columns = ["chrom", "start", "end", "name", "strand"]
    rows = {
        "two transcripts": ([("chr1", 100, 200, "A", "-"), ("chr1", 150, 900, "A", "-")], 899),
        "on both strands": ([("chr1", 100, 200, "A", "-"), ("chr1", 150, 900, "A", "+")], -1),
        "on two chromosomes": ([("chr1", 100, 200, "A", "+"), ("chr2", 150, 900, "A", "+")], -1),
        "far apart": ([("chr1", 100, 200, "A", "+"), ("chr1", 9_000_000, 9_000_100, "A", "+")], -1),
        "on X and Y": ([("chrY", 100, 200, "A", "+"), ("chrX", 150, 900, "A", "+")], 150),
        "on an alternative contig": ([("chr6_GL000250v2_alt", 1, 9, "A", "+"), ("chr6", 150, 900, "A", "+")], 150),
        "on a contig only": ([("chrUn_KI270742v1", 1, 9, "A", "+")], 1),
        "without a strand": ([("chr1", 100, 201, "A", ".")], 150),
    }
    for case, (table, expected) in rows.items():
        assert tss_of(pd.DataFrame(table, columns=columns), ["A"]) == [expected], case


def test_chromosomes_are_spelled_as_the_peaks_spell_them():
    def spelled(genes, peaks):
        return coordinates.same_naming(np.array(genes, dtype=object), np.array(peaks, dtype=object)).tolist()

    assert spelled(["1", "MT", "X", "7", ""], ["chr1", "chrM", "chrX"]) == ["chr1", "chrM", "chrX", "chr7", ""]
    assert spelled(["chr1", "chrM", "chrX"], ["1", "MT", "X"]) == ["1", "MT", "X"]
    assert spelled(["chr1", "GL000194.1"], ["chr1", "GL000194.1"]) == ["chr1", "GL000194.1"]
    assert spelled(["KI270742.1"], ["chr1"]) == ["KI270742.1"]


def test_genes_without_coordinates(rna, atac, bed):
    rna.var_names = ["GATA1", "unheard", "of", "TAL1"]
    with pytest.warns(UserWarning, match=r"2 of 4 genes have no coordinates, and so no cis links \('unheard', 'of'\)"):
        mdata = tr.pp.multiome(rna, atac, genes=bed)
    assert mdata["rna"].var["chrom"].tolist() == ["chr1", "", "", "chrX"]
    assert mdata["rna"].var["tss"].tolist() == [1000, -1, -1, 79]
    rna.var_names = [f"ENSG0000010210{i}" for i in range(4)]
    with pytest.raises(ValueError, match=r"None of the 4 names in `genes`.*upper-case symbols.*Ensembl ids"):
        tr.pp.multiome(rna, atac, genes=bed)
    rna.var_names = [name.capitalize() for name in GENES]
    with pytest.raises(ValueError, match="4 of them match when case is ignored: pass `match_case=False`"):
        tr.pp.multiome(rna, atac, genes=bed)
    bare = tr.pp.multiome(rna, atac)
    assert (bare["rna"].var["chrom"] == "").all()


def test_own_coordinates_of_the_genes(rna, atac, bed):
    first = tr.pp.multiome(rna, atac, genes=bed)
    again = tr.pp.multiome(first["rna"], first["atac"])
    for mod in ("rna", "atac"):
        assert content(again[mod]) == content(first[mod])


def test_tables_without_what_is_needed(bed):
    table = pd.DataFrame([line.split("\t") for line in BED.splitlines()], columns=coordinates._BED)
    with pytest.raises(ValueError, match="`genes` needs the columns 'chrom', 'start', 'end'.*Columns found: 'name'"):
        tss_of(table[["name", "strand"]])
    with pytest.raises(ValueError, match="`genes` has no column of gene names"):
        tss_of(table[["chrom", "start", "end"]])
    with pytest.raises(ValueError, match="Column 'start' of `genes` holds 1 values that are no positions"):
        tss_of(table.assign(start=["1", "x", "2", "3"]))
    with pytest.raises(ValueError, match="4 rows of `genes` end where they start"):
        tss_of(table.assign(end="5"))
    with pytest.raises(TypeError, match="path of a BED or GTF file, or a DataFrame, found list"):
        tss_of([1, 2])
    with pytest.raises(FileNotFoundError, match="`genes`: no file at 'absent.gtf'"):
        tss_of("absent.gtf")


def test_damaged_files(tmp_path):
    path = tmp_path / "genes.gtf.gz"
    text = gtf([f'gene_id "{name}"; note "{np.random.default_rng(0).bytes(20_000).hex()}";' for name in GENES])
    whole = gzip.compress(text.encode())
    for content_, message in (
        (whole[:2000], "'genes.gtf.gz' is cut short or damaged"),
        (whole[: len(whole) * 3 // 4], "'genes.gtf.gz' is cut short or damaged"),
        (b"\x1f\x8bnonsense", "'genes.gtf.gz' is cut short or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(range(256)), "is an HDF5 file"),
        (b"", "'genes.gtf.gz' is empty"),
    ):
        path.write_bytes(content_)
        with pytest.raises(ValueError, match=message):
            tss_of(path)


def test_parquet_and_csv(tmp_path):
    table = pd.DataFrame([line.split("\t") for line in BED.splitlines()], columns=coordinates._BED)
    table.to_parquet(tmp_path / "genes.parquet")
    table.to_csv(tmp_path / "genes.csv", index=False)
    assert tss_of(tmp_path / "genes.parquet") == TSS
    assert tss_of(tmp_path / "genes.csv") == TSS


# Genome builds


def many(shift=0, n=300):
    """Genes with a peak at nine of ten starts of transcription, and peaks elsewhere."""
    rng = np.random.default_rng(0)
    tss = np.sort(rng.choice(60_000, n, replace=False)) * 1000
    genes = pd.DataFrame(
        {"chrom": "chr1", "start": tss, "end": tss + 5000, "strand": "+"}, index=[f"G{i}" for i in range(n)]
    )
    starts = np.concatenate([tss[: n * 9 // 10] - 200, rng.integers(0, 60_000_000, 2 * n)]) + shift
    peaks = [f"chr1:{max(s, 0)}-{max(s, 0) + 500 + i}" for i, s in enumerate(starts)]
    rna = ad.AnnData(counts(10, n), obs=frame(n=10), var=pd.DataFrame(index=genes.index))
    atac = ad.AnnData(np.ones((10, len(peaks)), np.float32), obs=frame(n=10), var=pd.DataFrame(index=peaks))
    return rna, atac, genes


def test_peaks_at_starts_of_transcription_raise_no_doubt():
    rna, atac, genes = many()
    assert tr.pp.multiome(rna, atac, genes=genes).n_obs == 10


def test_another_genome_build_is_suspected():
    rna, atac, genes = many(shift=40_000)
    with pytest.warns(
        UserWarning, match=r"Only \d+ of 300 genes have a peak within 1 kb .*genome build \(hg19 or hg38\)"
    ):
        tr.pp.multiome(rna, atac, genes=genes)


def test_no_peak_near_any_gene():
    rna, atac, genes = many()
    for other in (genes.assign(chrom="chr2"), genes.assign(start=genes["start"] + 10**8, end=genes["end"] + 10**8)):
        with pytest.raises(ValueError, match="None of the 300 genes with coordinates has a peak within 500 kb.*build"):
            tr.pp.multiome(rna, atac, genes=other)


# Bad cells and values


def test_unpaired_cells(rna, atac, bed):
    atac.obs_names = [f"other{i}" for i in range(12)]
    with pytest.raises(ValueError, match="None of the 12 cells of `rna` is among the 12 of `atac`.*Only paired"):
        tr.pp.multiome(rna, atac, genes=bed)
    barcodes = ["".join(np.random.default_rng(i).choice(list("ACGT"), 16)) for i in range(12)]
    rna.obs_names, atac.obs_names = [f"{b}-1" for b in barcodes], [f"sample#{b}" for b in barcodes]
    with pytest.raises(ValueError, match=r"12 match by the barcode alone: .* suffix such as '-1'\. Give both the same"):
        tr.pp.multiome(rna, atac, genes=bed)
    atac.obs_names = [rna.obs_names[0], *barcodes[1:]]
    with pytest.warns(UserWarning, match="1 cells are in both; 11 of `rna` and 11 of `atac`.*12 match by the barcode"):
        tr.pp.multiome(rna, atac, genes=bed)


@pytest.mark.filterwarnings("ignore:.*names are not unique:UserWarning")
def test_repeated_names(rna, atac, bed):
    repeated = rna[[0, 0, *range(2, 12)]].copy()
    with pytest.raises(ValueError, match=r"`rna.obs_names` has 1 repeated cells \('cell0'\)"):
        tr.pp.multiome(repeated, atac, genes=bed)
    repeated = atac[:, [0, 0, 1, 2, 3]].copy()
    with pytest.raises(ValueError, match=r"`atac.var_names` has 1 repeated peaks"):
        tr.pp.multiome(rna, repeated, genes=bed)


@pytest.mark.parametrize("name", ["rna", "atac"])
def test_bad_values(rna, atac, bed, name):
    one = {"rna": rna, "atac": atac}
    good = one[name].X.toarray()
    for value, text in ((-1, "has negative values"), (np.nan, "1 NaN or infinite"), (np.inf, "1 NaN or infinite")):
        bad = good.copy()
        bad[1, 1] = value
        one[name].X = sparse.csr_matrix(bad)
        with pytest.raises(ValueError, match=f"`{name}.X` {text}|`{name}.X` has {text}"):
            tr.pp.multiome(**one, genes=bed)
    one[name].X = sparse.csr_matrix(good * 0)
    with pytest.raises(ValueError, match=f"`{name}.X` holds only zeros"):
        tr.pp.multiome(**one, genes=bed)
    one[name].X = None
    with pytest.raises(ValueError, match=f"`{name}.X` is None"):
        tr.pp.multiome(**one, genes=bed)


def test_bad_arguments(rna, atac, bed):
    with pytest.raises(ValueError, match=r"With `binarize=False`, `atac.X` must hold values in \[0, 1\], found up to"):
        tr.pp.multiome(rna, atac, genes=bed, binarize=False)
    with pytest.raises(ValueError, match=r"`min_open` to lie in \[0, 1\)"):
        tr.pp.multiome(rna, atac, genes=bed, min_open=1)
    with pytest.raises(ValueError, match="`target_sum`"):
        tr.pp.multiome(rna, atac, genes=bed, target_sum=0)
    with pytest.raises(TypeError, match="Expected `atac` to be an AnnData, found DataFrame"):
        tr.pp.multiome(rna, atac.to_df(), genes=bed)
    with md.set_options(pull_on_update=False):
        other = md.MuData({"gex": rna, "atac": atac})
    with pytest.raises(KeyError, match="`rna`: 'rna' not found in `mdata.mod`. Available: 'gex', 'atac'"):
        tr.pp.multiome(other, genes=bed)


# The whole way


@pytest.mark.parametrize("suffix", ["h5mu", "zarr"])
def test_round_trip(rna, atac, bed, tmp_path, suffix):
    mdata = tr.pp.multiome(rna, atac, genes=bed)
    tr.pp.cis_links(mdata)
    tr.pp.split_cells(mdata, "cell_type")
    path = tmp_path / f"cells.{suffix}"
    mdata.write(path) if suffix == "h5mu" else mdata.write_zarr(path)
    with md.set_options(pull_on_update=False):
        back = md.read_h5mu(path) if suffix == "h5mu" else md.read_zarr(path)
    np.testing.assert_array_equal(back.varp["cis"].toarray(), mdata.varp["cis"].toarray())
    assert back.obs["cell_split"].tolist() == mdata.obs["cell_split"].tolist()
    for key in ("multiome", "cis"):
        assert tr.get.record(back, key) == tr.get.record(mdata, key)
    one, other = (tr.get.record(data, "cell_split") for data in (back, mdata))
    pd.testing.assert_frame_equal(one.pop("counts"), other.pop("counts"), check_column_type=False)
    assert one == other
    pd.testing.assert_frame_equal(back["rna"].var, mdata["rna"].var)
    again = tr.pp.multiome(back, genes=bed)
    np.testing.assert_array_equal(again["rna"].X.toarray(), mdata["rna"].X.toarray())


def test_equal_runs_write_equal_records(rna, atac, bed):
    assert content(tr.pp.multiome(rna, atac, genes=bed)) == content(tr.pp.multiome(rna, atac, genes=bed))
    record = tr.get.record(tr.pp.multiome(rna, atac, genes=bed), "multiome")
    assert record["params"]["genes"] == "genes.bed"
    assert record["counts"]["cells"] == 12


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chen2019_snareseq_hESC", {"cells": 385, "genes": 8595, "genes_without_coordinates": 620, "peaks": 36_954}),
        ("scpoem_single", {"cells": 300, "genes": 300, "genes_without_coordinates": 6, "peaks": 3170}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*have no coordinates:UserWarning")
def test_published_multiomes(data_dir, name, expected):
    with md.set_options(pull_on_update=False):
        published = md.read_h5mu(data_dir / "multiome" / f"{name}.h5mu")
    genes = data_dir / "annotations" / "CollapsedGeneBounds.hg38.intGENCODEv43.bed.gz"
    mdata = tr.pp.multiome(published, genes=genes)
    assert mdata.uns["multiome"]["counts"].items() >= expected.items()
    tr.pp.cis_links(mdata)
    counts = mdata.uns["cis"]["counts"]
    assert counts["genes_with_links"] > 0.99 * counts["genes_with_coordinates"]
    tr.pp.split_cells(mdata)
    n_obs = mdata.n_obs
    assert mdata.obs["cell_split"].value_counts()["test"] == round(0.2 * n_obs)
