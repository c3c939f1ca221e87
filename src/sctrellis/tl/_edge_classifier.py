from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis._core.rows import Rows
from sctrellis.metrics import _pair_classifiers as pair_classifiers
from sctrellis.tl import _training_pairs as training_pairs

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sctrellis.models._prior import Features

EdgeMethod = Literal["one_hot", "degree", "matcomp", "genelink", "scgreat", "embedding"]
EDGE_METHODS: tuple[EdgeMethod, ...] = get_args(EdgeMethod)
_TRAINED = ("genelink", "scgreat")
_EMBEDDED = ("scgreat", "embedding")
_COMPONENTS = 32
"""Principal components of an embedding that are used."""


def edge_classifier(
    adata: "AnnData | MuData",
    method: EdgeMethod = "one_hot",
    *,
    network: str = "network",
    fold: Literal["train", "train_validation"] = "train",
    regulators: str | Sequence[str] | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    n_factors: int = 4,
    negatives: Literal["all", "balanced"] = "all",
    mask_scored: bool = True,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    patience: int | None = 5,
    seed: int | None = 0,
    device: str = "auto",
    progress: bool | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Learn from known edges which pairs are edges, and score every regulator with every gene.

    Expects log-normalised expression and a known network divided by :func:`sctrellis.pp.split_edges`. Only labels of
    `fold` are learnt from; other pairs of that fold count as non-edges.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    method
        ``"one_hot"``
            Logistic regression on who the two genes are, and nothing else.
        ``"degree"``
            Sum of the log-odds of both genes' shares of edges: the same without a fit.
        ``"matcomp"``
            Logistic factorisation of the matrix of regulators by targets: one number and `n_factors` factors for each
            gene in each role.
        ``"genelink"``
            GENELink: graph attention on expression over the known edges, and a product of two towers.
        ``"scgreat"``
            scGREAT: a transformer over the two genes of a pair, from expression and embedding.
        ``"embedding"``
            Logistic regression on the embeddings of both genes, side by side: what "scgreat" has to beat.
    network
        Key of the known network in ``adata.varp``.
    fold
        Pairs to learn from: ``"train"``; or ``"train_validation"`` for both folds, where nothing is left to say when to
        stop.
    regulators
        Regulators to score: None for ``adata.var["is_regulator"]`` and those that have a pair in some fold, the name of
        another Boolean column of ``adata.var``, ``"all"``, or gene names.
    embedding
        Key of gene embeddings in ``adata.varm``, as :func:`sctrellis.pp.gene_embedding` and
        :func:`sctrellis.pp.text_embedding` write them. Needed, and read, by ``"scgreat"`` and ``"embedding"``.
    layer
        Layer with the expression; None is ``adata.X``.
    n_factors
        Factors of a gene. ``"matcomp"`` only.
    negatives
        Non-edges to learn from: ``"all"``, or ``"balanced"``, as many of each regulator as it has edges, drawn anew in
        each epoch. ``"genelink"`` and ``"scgreat"`` only.
    mask_scored
        Whether messages between the two genes of a pair are held back while the pair is learnt from. ``"genelink"``
        only.
    max_epochs
        Epochs at most; None is 20 for ``"genelink"``, 10 for ``"scgreat"``.
    batch_size
        Pairs in a step; None is 2,048 for ``"genelink"``, 1,024 for ``"scgreat"``. An epoch has at most 64 steps.
    lr
        Learning rate at the start, which falls to 0 as a cosine; None is 0.003 for ``"genelink"``, 0.001 for
        ``"scgreat"``.
    patience
        Epochs without a smaller loss on the validation fold before ``"genelink"`` and ``"scgreat"`` stop and return to
        their best state; None trains to the end and reads no label of that fold.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides the start of ``"matcomp"``, ``"genelink"`` and
        ``"scgreat"``, the order of pairs, what dropout drops, and which cells are drawn of more than 2,000.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises. Only
        ``"genelink"`` and ``"scgreat"`` use it.
    progress
        Progress bar over epochs; None follows ``settings.progress``.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is the method's name, ``"embedding_lr"`` for ``"embedding"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Edge scores in [0, 1], row = regulator, column = target: probabilities as learnt, not calibrated. Every pair of
        a varying regulator and a varying gene is stored; self pairs are not.
    ``adata.uns[key_added]`` : dict
        Record of the run. ``labels_used`` names the network whose labels the scores have seen, ``folds_used`` the folds
        that were learnt from or that decided when to stop; ``score_scale`` is ``"probability"``. ``weights`` rebuilds
        what was fitted, and ``fit`` counts pairs and edges; with ``"genelink"`` and ``"scgreat"`` also epochs and
        device, and ``history`` the losses.

    Raises
    ------
    KeyError
        If the network, its folds, the embedding, a layer, column or modality is missing.
    ValueError
        If the method is unknown or needs an embedding and gets none, the training pairs have no known edge or nothing
        else, the embedding covers no regulator or is the same for all genes, or values are negative or not finite.
    TypeError
        If an argument has the wrong type.
    FloatingPointError
        If the loss stops being finite.

    Notes
    -----
    With :math:`p_{ik}` the probability that regulator :math:`i` acts on gene :math:`k`, ``"one_hot"`` is
    :math:`\mathrm{logit}\,p_{ik} = c + a_i + b_k` with penalty :math:`(|a|^2 + |b|^2) / 2`, and ``"matcomp"`` adds
    :math:`u_i \cdot v_k` with penalty :math:`|u|^2 + |v|^2`. Whatever belongs to a gene that has no training pair in
    that role is 0, so all pairs of two unseen genes get one score, and their average precision is the share of edges.
    ``"degree"`` takes :math:`a_i` and :math:`b_k` as log-odds of the gene's share of edges less those of the overall
    share, each share smoothed by one pair more. ``"embedding"`` has :math:`c + w_1 \cdot h_i + w_2 \cdot h_k` with the
    first 32 principal components: it cannot see whether two genes belong together.

    The networks are written anew from their descriptions, smaller than published, so that they train on one core in
    about a minute for 56,000 pairs. With `patience`, the loss on the validation fold says when to stop: pairs of unseen
    genes there (``scheme="infosem"`` or ``"both"``) choose a state that need not suit seen ones. Test pairs are never
    looked at. Dropout is off when pairs are scored. Of more than 2,000 cells, 2,000 are drawn.

    - ``"genelink"``: the graph holds known edges of the training fold, in both directions, less those between two genes
      that validation or test asks about in either direction. While a pair is learnt from, its own edge is masked, so
      that an edge must be told from the rest of the graph, as in the test. Each gene also attends to itself; in the
      published model a gene without edges attends to all genes alike, so that all unseen genes become one. Two layers
      of 3 heads of 64 features (published: 128, then 64).
    - ``"scgreat"``: tokens of 96 features (published: 768), normalised before attention; the embedding enters as its
      first 32 components. Genes without one share a vector that is learnt.

    Equal arguments give equal results on the CPU of one machine, close ones on a GPU.

    References
    ----------
    GENELink: :cite:p:`chen2022genelink`. scGREAT: :cite:p:`wang2024scgreat`. Their reference implementations are
    https://github.com/zpliulab/GENELink and https://github.com/WangyuchenCS/scGREAT; none of their code is used. What
    scores on seen genes hide: :cite:p:`cui2025infosem`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.edge_classifier(adata, "one_hot")
    >>> tr.get.record(adata, "one_hot")["labels_used"]
    'network'
    """
    values = locals()
    checks.choice("method", method, EDGE_METHODS)
    checks.choice("fold", fold, tuple(training_pairs.FOLDS))
    checks.choice("negatives", negatives, ("all", "balanced"))
    checks.integer("n_factors", n_factors)
    if not isinstance(mask_scored, bool):
        msg = f"Expected `mask_scored` to be True or False, found {mask_scored!r}."
        raise TypeError(msg)
    if patience is not None:
        checks.integer("patience", patience)
    settings = _settings(method, max_epochs, batch_size, lr)
    seed = checks.seed(seed)
    name = "embedding_lr" if method == "embedding" else method
    keys = Keys.for_method(name, key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    known, folds = slots.read_network(ad, network), training_pairs.read_folds(ad, network)
    mask = slots.read_regulators(ad, regulators)
    if regulators is None:
        mask = mask | (folds.getnnz(axis=1) > 0)
    rows = slots.read_matrix(ad, layer)
    varying = rows.summary.std > 0
    scored = training_pairs.scored(mask, varying)
    train = training_pairs.labelled(known, folds, training_pairs.FOLDS[fold], network)
    if method in _TRAINED or device != "auto":
        from sctrellis.models import resolve_device

        settings["device"] = resolve_device(device)
    features = _features(ad, embedding, method, mask) if method in _EMBEDDED else None

    fit: dict[str, Any] = {"n_train_pairs": len(train[0]), "n_train_edges": int(train[2].sum())}
    used, history = ["train"] if fold == "train" else ["train", "validation"], None
    if method in _TRAINED:
        found = _train(
            method, rows, train, known, folds, scored, fold=fold, features=features, seed=seed, progress=progress,
            patience=patience,
            negatives=negatives, mask_scored=mask_scored, settings=settings,
        )  # fmt: skip
        probability, weights, history = found.probability, found.weights, found.history
        fit |= found.fit
        used = ["train", "validation"] if "validation" in history else used
    else:
        scores = _fit_scores(method, train, ad.n_vars, n_factors=n_factors, features=features, seed=seed)
        probability, weights = scores.probability(scored), scores.arrays()
    columns = np.flatnonzero(varying)
    stored = slots.network_csr(probability[:, columns], scored, columns, ad.n_vars)
    params = record.arguments(edge_classifier, values)
    entry = record.build(
        name,
        ad,
        params=params | {key: value for key, value in settings.items() if key != "device"},
        seed=seed,
        slots={"network": f"varp/{keys.network}"},
        layer=layer,
        fit=fit,
        history=history,
        weights=weights,
        extra={"labels_used": network, "folds_used": used, "score_scale": "probability"},
    )
    logs.added(slots.write(ad, varp={keys.network: stored}, uns={keys.record: entry}))
    return root if copy else None


def _settings(method: str, max_epochs: int | None, batch_size: int | None, lr: float | None) -> dict[str, Any]:
    """Return the training settings that were given, checked, with the method's own for the others."""
    given: dict[str, Any] = {}
    if max_epochs is not None:
        given["max_epochs"] = checks.integer("max_epochs", max_epochs)
    if batch_size is not None:
        given["batch_size"] = checks.integer("batch_size", batch_size)
    if lr is not None:
        given["lr"] = checks.number("lr", lr, low=0, open_low=True)
    if method not in _TRAINED:
        return given
    from sctrellis.models._edge_classifiers import DEFAULTS

    return {**DEFAULTS[method], **given}


def _features(ad: "AnnData", embedding: str | None, method: str, regulators: np.ndarray) -> "Features":
    from sctrellis.models import reduce_embedding

    if embedding is None:
        listed = ", ".join(map(repr, ad.varm.keys())) or "none"
        msg = (
            f"`method={method!r}` needs gene embeddings: name them with `embedding=`, a key of `adata.varm`. "
            f"Available: {listed}. `sctrellis.pp.gene_embedding` and `sctrellis.pp.text_embedding` write one."
        )
        raise ValueError(msg)
    found = slots.read_embedding(ad, embedding)
    present = np.isfinite(found).all(axis=1)
    if not present[regulators].any():
        msg = (
            f"`embedding`: `adata.varm[{embedding!r}]` covers {int(present.sum())} of {len(present)} genes, none of "
            f"them among the {int(regulators.sum())} regulators. Do both use the same identifiers?"
        )
        raise ValueError(msg)
    if (found[present] == found[present][0]).all():
        msg = f"`embedding`: `adata.varm[{embedding!r}]` is the same for all genes that have one: it tells none apart."
        raise ValueError(msg)
    return reduce_embedding(found, _COMPONENTS)


def _fit_scores(
    method: str,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_genes: int,
    *,
    n_factors: int,
    features: "Features | None",
    seed: int,
) -> pair_classifiers.PairScores:
    if method == "one_hot":
        return pair_classifiers.one_hot(*train, n_genes)
    if method == "degree":
        return pair_classifiers.degree(*train, n_genes)
    if method == "matcomp":
        return pair_classifiers.complete_matrix(*train, n_genes, n_factors=n_factors, seed=seed)
    assert features is not None  # read for this method
    return pair_classifiers.feature_regression(*train, features.values, ~features.present)


def _train(
    method: Any,
    rows: Rows,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    known: sparse.csr_matrix,
    folds: sparse.csr_matrix,
    scored: np.ndarray,
    *,
    fold: str,
    features: "Features | None",
    seed: int,
    progress: bool | None,
    patience: int | None,
    negatives: Any,
    mask_scored: bool,
    settings: dict[str, Any],
) -> Any:
    from sctrellis.models._edge_classifiers import EdgeConfig, fit_edge_classifier
    from sctrellis.models._edge_features import LabelledPairs

    validation: LabelledPairs | None = None
    if fold == "train" and patience is not None:
        row, column = training_pairs.in_folds(folds, (training_pairs.VALIDATION,))
        if len(row):
            validation = LabelledPairs(row, column, training_pairs.labels(known, row, column))
    config = {key: value for key, value in settings.items() if key != "device"}
    return fit_edge_classifier(
        method,
        training_pairs.profiles(rows, seed),
        LabelledPairs(*train),
        scored,
        config=EdgeConfig(**config, patience=patience, negatives=negatives, mask_scored=mask_scored),
        validation=validation,
        held=training_pairs.in_folds(folds, [code for code in (1, 2, 3) if code not in training_pairs.FOLDS[fold]]),
        features=features,
        seed=seed,
        device=settings["device"],
        progress=progress,
    )
