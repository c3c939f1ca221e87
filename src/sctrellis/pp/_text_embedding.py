from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, record, slots
from sctrellis._core.keys import Keys
from sctrellis.pp import _identifiers as identifiers
from sctrellis.pp import _read_table as tables
from sctrellis.pp._embedding import EMBEDDING, coverage, record_of, write

if TYPE_CHECKING:
    from anndata import AnnData

_GENE = ("gene", "symbol", "genesymbol", "genename", "genes", "geneid", "ensembl", "ensemblid", "name")
_TEXT = ("text", "description", "term", "goterm", "terms", "summary", "definition", "function")
_CAVEAT = (
    "Made from text about genes. Text can mention the very interactions that a benchmark hides, so a claim about "
    "unseen "
    "genes also needs a control that uses the embedding and no expression."
)


def text_embedding(
    adata: "AnnData",
    terms: Any,
    *,
    gene: str | int | None = None,
    text: str | int | Sequence[str] | None = None,
    n_components: int = 64,
    min_df: int = 2,
    match_case: bool = True,
    key_added: str | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    """Make a vector for each gene from words about it, such as its GO terms or description; expression is not read.

    Parameters
    ----------
    adata
        AnnData, cells x genes, or a MuData with ``mod``.
    terms
        Table with one or many rows for each gene: a DataFrame, the path of a CSV, TSV or parquet file, plain or gzip,
        or a dict from gene to a text or a list of texts. Rows of one gene are joined; repeated rows count once.
    gene
        Column of gene names; None looks for ``gene``, ``symbol`` and the like.
    text
        Column, or list of columns, of text; None looks for ``text``, ``description``, ``term``, ``go_term`` and the
        like.
    n_components
        Length of the vectors. Fewer where the text does not support as many, with a warning.
    min_df
        Smallest number of genes that a word must occur in.
    match_case
        Whether ``Gata1`` and ``GATA1`` are different genes. Words are always compared without regard to case.
    key_added
        Key of what is written; None is ``"embedding"``.
    seed
        Seed, in [0, 2**32); None draws one and records it. It starts the decomposition, and changes results by rounding
        only.
    mod
        Modality of a MuData.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varm[key_added]`` : float32, shape (n_vars, n_components)
        Vectors of length 1; a gene without usable words is a row of NaN.
    ``adata.uns[key_added]`` : dict
        Record, with ``coverage``, the number of words, the share of variance that each component explains, and a caveat
        on claims about unseen genes.

    Raises
    ------
    ValueError
        Where a column is not found, no gene matches, no word occurs in ``min_df`` genes, or a file is damaged or no
        table.
    TypeError
        Where ``terms`` is no table.
    FileNotFoundError
        Where there is no such file.

    Notes
    -----
    Words (two or more letters or digits) are counted, weighted by tf-idf, ``count x (1 + log((1 + n) / (1 + df)))``,
    where a word occurs in ``df`` of the ``n`` genes with text, and scaled to length 1 for each gene; a truncated
    singular value decomposition (without centring: latent semantic analysis) gives U S, and each gene's row is scaled
    to length 1 again, so that the product of two vectors is their cosine. Only genes of ``adata.var_names`` take part.
    Each component's sign makes its largest word loading positive. Components with a singular value below 1e-4 of the
    first are dropped. Cost: linear in the number of words, times ``n_components``.

    References
    ----------
    Deerwester et al., Indexing by latent semantic analysis, J. Am. Soc. Inf. Sci. 41 (1990). scikit-learn's
    ``TfidfVectorizer`` and ``TruncatedSVD`` compute it.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, sctrellis as tr
    >>> genes = pd.DataFrame(index=["GATA1", "KLF1", "HBB", "XYZ"])
    >>> adata = anndata.AnnData(np.ones((3, 4), dtype="float32"), var=genes)
    >>> terms = {"GATA1": "erythroid factor", "KLF1": "erythroid factor", "HBB": "oxygen transport by erythroid cells"}
    >>> tr.pp.text_embedding(adata, terms, n_components=1, min_df=1)
    >>> adata.varm["embedding"].shape
    (4, 1)
    """
    params = record.arguments(text_embedding, locals())
    root, ad = slots.target(adata, copy=copy, mod=mod)
    key = Keys.for_method(EMBEDDING, key_added).base
    n_components = checks.integer("n_components", n_components)
    min_df = checks.integer("min_df", min_df)
    used = checks.seed(seed)
    checks.gene_names(ad.var_names)
    frame, gene_at, text_at = _table(terms, gene, text)

    codes, unique = identifiers.factorize(frame.iloc[:, gene_at])
    if not len(unique):
        msg = "`terms` names no genes."
        raise ValueError(msg)
    matches = identifiers.match(unique, ad.var_names, match_case=match_case)
    if not matches.found.any():
        raise checks.no_match("terms", list(unique), ad.var_names)
    texts = pd.DataFrame({"gene": np.append(matches.position, -1)[codes], "text": _text(frame, text_at)})
    texts = texts[(texts["gene"] >= 0) & (texts["text"] != "")].drop_duplicates()
    if texts.empty:
        msg = "`terms` has no text for any gene of `adata.var_names`: the column of text is blank."
        raise ValueError(msg)
    joined = texts.groupby("gene", sort=True)["text"].agg(" ".join)
    counts, words = _counts(joined, min_df)
    values, explained = _decompose(counts, n_components, used)

    result = np.full((ad.n_vars, values.shape[1]), np.nan, dtype=np.float32)
    result[joined.index.to_numpy()] = values
    matches.warn("terms")
    columns = [str(frame.columns[i]) for i in (gene_at, *text_at)]
    params |= {"terms": tables.describe(terms), "gene": columns[0], "text": columns[1:]}
    extra = {
        "coverage": coverage(np.isnan(result[:, 0]), matches),
        "n_words": len(words),
        "n_components": values.shape[1],
        "explained_variance_ratio": explained,
        "caveat": _CAVEAT,
    }
    write(ad, key, result, record_of("text_embedding", ad, key, params, seed=used, extra=extra))
    return root if copy else None


def _table(terms: Any, gene: str | int | None, text: Any) -> tuple[pd.DataFrame, int, list[int]]:
    """Return the table and the positions of its columns of genes and of text."""
    if isinstance(terms, str | Path):
        frame = tables.read_table("terms", terms)
    elif isinstance(terms, pd.DataFrame):
        frame = tables.as_frame(terms)
    elif isinstance(terms, Mapping):
        frame = pd.Series(dict(terms), dtype=object).explode().rename_axis("gene").rename("text").reset_index()
    else:
        msg = f"Expected `terms` to be a DataFrame, a dict or a path, found {type(terms).__name__}."
        raise TypeError(msg)
    if not len(frame):
        msg = "`terms` holds no rows."
        raise ValueError(msg)
    gene_at = tables.find_column("terms", frame, "gene", gene, _GENE)
    given = [text] if text is None or isinstance(text, str | int) else list(text)
    text_at = [tables.find_column("terms", frame, "text", name, _TEXT) for name in given]
    if gene_at is None or None in text_at or not text_at:
        what = "gene names" if gene_at is None else "text"
        msg = (
            f"`terms` has no column for {what} under a usual name. Columns found: {tables.listed(frame)}. Name them, "
            "as in "
            "`gene='symbol', text='description'`."
        )
        raise ValueError(msg)
    return frame, gene_at, [i for i in text_at if i is not None]


def _text(frame: pd.DataFrame, columns: Sequence[int]) -> np.ndarray:
    parts = [frame.iloc[:, i].astype(object).where(frame.iloc[:, i].notna(), "").astype(str) for i in columns]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + " " + part
    return joined.str.strip().to_numpy()


def _counts(texts: pd.Series, min_df: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return tf-idf weights, genes x words, and the words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(min_df=1)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's "empty vocabulary"
        msg = f"The text of `terms` holds no words of two or more letters (first text: {texts.iloc[0][:60]!r})."
        raise ValueError(msg) from error
    df = np.bincount(weights.indices, minlength=weights.shape[1])
    if (df < min_df).all():
        msg = f"No word of `terms` occurs in `min_df` = {min_df} of the {len(texts):,} genes with text. Lower `min_df`."
        raise ValueError(msg)
    if min_df > 1:
        vectorizer = TfidfVectorizer(min_df=min_df)
        weights = vectorizer.fit_transform(texts)
    return sparse.csr_matrix(weights), vectorizer.get_feature_names_out()


def _decompose(weights: sparse.csr_matrix, n_components: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of U S scaled to length 1 (NaN where a row is empty), and the explained shares of variance."""
    from sklearn.decomposition import TruncatedSVD

    wanted = n_components
    most = min(weights.shape) - 1  # the Lanczos solver finds all components but the last
    if most < 1:
        # One gene or one word: the only component is the weight itself.
        scores, shares = np.asarray(weights.sum(axis=1)).reshape(-1, 1), np.ones(1)
        if weights.shape[0] == 1 < weights.shape[1]:
            scores = np.ones((1, 1))
    else:
        svd = TruncatedSVD(min(n_components, most), algorithm="arpack", random_state=seed)
        scores = svd.fit_transform(weights)
        kept = svd.singular_values_ > 1e-4 * svd.singular_values_[0]
        loadings = svd.components_[kept]
        largest = np.abs(loadings).max(axis=1, keepdims=True)
        # Words that always occur together load alike: take the first of those that tie, whatever rounding says.
        first = (np.abs(loadings) > largest * (1 - 1e-6)).argmax(axis=1)
        scores = scores[:, kept] * np.sign(loadings[np.arange(len(loadings)), first])
        shares = svd.explained_variance_ratio_[kept]
    n_components = scores.shape[1]
    if n_components < wanted:
        checks.warn(
            f"The text of {weights.shape[0]:,} genes with {weights.shape[1]:,} words supports {n_components} "
            "components, fewer "
            f"than `n_components` = {wanted}: the embedding has {n_components}."
        )
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    scale = np.where(length > 1e-6, length, np.nan)  # none of a gene's words is in the components
    return scores / scale, shares
