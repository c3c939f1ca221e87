import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl import _training_pairs as training_pairs
from sctrellis.tl._fitted_regnet import fold_hash, write_regnet

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sctrellis.models import RegNetConfig

_FEW_EDGES = 3


def regnet(
    adata: "AnnData | MuData",
    *,
    network: str = "network",
    fold: Literal["train", "train_validation"] = "train",
    prior: str | None = None,
    prior_overlap: Literal["refuse", "drop"] = "refuse",
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    direction: Literal["regulators", "targets", "both"] = "regulators",
    aggregator: Literal["mlp", "eb"] = "mlp",
    n_layers: int = 2,
    hidden: int = 128,
    latent: int = 64,
    attn_keys: Literal["all", "regulators"] = "all",
    n_features: int = 128,
    dropout: float = 0.2,
    asked_frac: float = 0.3,
    n_neg: int = 5,
    neg_mode: Literal["uniform", "per_regulator"] = "uniform",
    reversed_pairs: Literal["learn", "hide"] = "learn",
    train_messages: bool = True,
    beta: float = 0.01,
    free_bits: float = 0.02,
    reconstruction: float = 0.1,
    entropy: float = 0.0,
    max_epochs: int = 50,
    lr: float = 1e-3,
    patience: int | None = 8,
    seed: int | None = 0,
    device: str = "auto",
    progress: bool | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Learn from known edges, with messages along them, a latent vector for each gene and the log-odds of every edge.

    Expects log-normalised expression and a known network divided by :func:`sctrellis.pp.split_edges`. Only labels of
    `fold` are learnt from; other pairs of that fold count as non-edges.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    network
        Key of the known network in ``adata.varp``.
    fold
        Pairs to learn from: ``"train"``; or ``"train_validation"`` for both folds, where nothing is left to say when to
        stop.
    prior
        Key of further edges in ``adata.varp`` along which messages run, such as motifs near open chromatin; they are
        not learnt. Whoever names one vouches that it was made without the labels of `network`.
    prior_overlap
        What to do where `prior` holds an edge between the two genes of a held-out pair, in either direction:
        ``"refuse"``, or ``"drop"`` those edges. Whether the pair is an edge of `network` plays no part.
    regulators
        Regulators to score: None for ``adata.var["is_regulator"]`` and those that have a pair in some fold, the name of
        another Boolean column of ``adata.var``, ``"all"``, or gene names.
    layer
        Layer with the expression; None is ``adata.X``.
    direction
        Whose mean a gene hears: that of its ``"regulators"``, of its ``"targets"``, or ``"both"``.
    aggregator
        How own features and neighbour mean meet: ``"mlp"``, in a hidden layer on both side by side; or ``"eb"``, in
        their weighted mean with the weight of a posterior mean, followed by a hidden layer.
    n_layers
        Layers over the graph.
    hidden
        Width of the layers.
    latent
        Length of a latent vector.
    attn_keys
        Genes that are attended to: ``"all"``, or ``"regulators"``, those that are scored.
    n_features
        Principal axes of the cells that a gene's features are coordinates on, at most.
    dropout
        Share of features dropped after each layer over the graph while training, in [0, 1).
    asked_frac
        Share of the training edges that a step asks about, in (0, 1]; the others are its graph.
    n_neg
        Non-edges asked about, for each edge that is; drawn anew in each step.
    neg_mode
        How they are drawn: ``"uniform"``, from all training pairs that are no known edges; ``"per_regulator"``, as many
        of each regulator as suit its edges, so that how many targets a regulator has is not learnt.
    reversed_pairs
        ``"learn"``: learn from all pairs of `fold`, as other classifiers do. ``"hide"``: not from those whose reverse
        is held out; see Notes.
    train_messages
        Whether messages run along the known edges that are learnt from. Without, and without `prior`, no gene hears its
        neighbours: the same model without a graph, for comparison.
    beta
        Weight of the divergence of the latent vectors from a standard normal, once it has risen from 0.
    free_bits
        Nats of each latent dimension that are free of it.
    reconstruction
        Weight of the squared error of the features, as decoded from the latent vectors.
    entropy
        Weight of the mean entropy of the attention, as a share of its largest value; 0 leaves it out.
    max_epochs
        Epochs at most, of 10 steps each.
    lr
        Learning rate.
    patience
        Epochs without a larger average precision on the validation fold before training stops and returns to its best
        state; None trains to the end and reads no label of that fold.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides initial state, pairs drawn, dropout and latent
        noise, and which cells are drawn of more than 2,000.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    progress
        Progress bar over epochs; None follows ``settings.progress``.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"regnet"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Log-odds of an edge at the share of edges of the training pairs, row = regulator, column = target. Every pair of
        a varying regulator and a varying gene is stored; self pairs are not.
    ``adata.varp[key_added + "_prob"]`` : csr_matrix, float32
        Probability under log-odds and latent noise. Not calibrated.
    ``adata.varp[key_added + "_std"]`` : csr_matrix, float32
        Standard deviation of the log-odds under the latent noise, to first order.
    ``adata.varm["X_" + key_added]`` : float32, shape (n_vars, latent)
        Mean of each gene's latent vector.
    ``adata.var[key_added + "_gate"]`` : float32
        Mean share of the attention's context in a gene's features, in (0, 1).
    ``adata.uns[key_added]`` : dict
        Record of the run. ``labels_used`` names the network whose labels the scores have seen, ``folds_used`` the folds
        that were learnt from or that decided when to stop. ``weights`` and ``config`` rebuild the model with its graph:
        :func:`sctrellis.models.load_regnet`. ``hashes`` has the sha256 of folds and graph. ``fit`` counts pairs, edges
        and genes, and holds the participation ratio of the latent means (dimensions in use) and the attention's entropy
        as a share of its largest value; ``history`` has the losses.

    Raises
    ------
    KeyError
        If the network, its folds, the prior, a layer, column or modality is missing.
    ValueError
        If the training pairs have no known edge or nothing else, `prior` holds an edge that is held out and
        ``prior_overlap="refuse"``, a setting is out of range, or values are negative or not finite.
    TypeError
        If an argument has the wrong type.
    FloatingPointError
        If the loss stops being finite.

    Warns
    -----
    UserWarning
        If the latent means use fewer than 4 dimensions: then they say little more than how many edges a gene has.

    Notes
    -----
    *Features.* A gene's features are the coordinates of its standardised profile on the first principal axes of the
    cells: a linear reduction, fixed before the fit, after which genes keep their place relative to one another and data
    sets with different cells have features of one length. :func:`sctrellis.tl.regnet_finetune` turns the axes of
    another data set onto these.

    *Model.* With :math:`x_i` the features and :math:`m_i` their mean over the neighbours of gene :math:`i`, a layer
    over the graph is :math:`h_i = \mathrm{LayerNorm}(\mathrm{ReLU}(W_2 \mathrm{ReLU}(W_1 [x_i \| m_i] + b_1) + b_2))`,
    or with ``aggregator="eb"`` the same of :math:`w_i x_i + (1 - w_i) m_i`, where :math:`w_i = \tau_i^2 / (\tau_i^2 +
    \sigma^2)` and :math:`\tau_i^2 = \mathrm{softplus}(a) + \mathrm{softplus}(b) / n_i`. A gene without neighbours takes
    its own features for their mean. Then come attention over all genes, a gate between its result and :math:`h_i`, a
    residual, and linear maps to mean and log-variance of a latent normal. The log-odds are :math:`w \cdot
    \mathrm{ReLU}(W_a z_i + W_b z_j + b)` plus a constant, with :math:`z` drawn while training and the mean afterwards.

    *Loss.* Cross-entropy of the pairs asked about, corrected for how many non-edges are drawn, so that log-odds refer
    to all training pairs; ``beta`` times the divergence, rising over the first 30 % of the steps; ``reconstruction``
    times the squared error; ``entropy`` times the attention's entropy. The published weight of the latter, 0.01, makes
    every gene attend to one or a few, with no gain on validation pairs.

    *Leaks.* Messages run along known edges of the training fold and of `prior`, never along non-edges, and never
    between the two genes of a held-out pair, whichever way it is asked. Each step divides the training edges: what is
    asked about is not in the graph, in neither direction. Average precision on the validation fold says when to stop;
    labels of the test fold are never read, so that changing them changes no score.

    *Reversed pairs.* In many reference networks most edges between two regulators run both ways, so that a training
    label often gives away a held-out one: on mDC cells and the non-specific network, ranking by the label of the
    reverse pair alone has an average precision of 0.2 where the degrees of both genes have 0.05 to 0.15. What is learnt
    from such labels is no leak of test labels, but neither is it read from expression. ``reversed_pairs="hide"`` leaves
    these pairs out; ``fit`` counts them as ``n_reverse_held_out``.

    The published model passes messages along all labelled pairs, non-edges too, and at test time along the test pairs;
    validates on training pairs; and has as many inputs as cells, so that its first layer cannot be used elsewhere. None
    of this is so here. See the guide.

    Equal arguments give equal results on the CPU of one machine, close ones on a GPU. Memory grows with genes times
    width, and with the number of scored pairs: attention never holds genes x genes numbers.

    References
    ----------
    GraphSAGE: :cite:p:`hamilton2017graphsage`; variational autoencoders: :cite:p:`kingma2014vae`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> adata.varm["X_regnet"].shape
    (30, 64)
    """
    values = locals()
    config = _config(values)
    checks.choice("fold", fold, tuple(training_pairs.FOLDS))
    checks.choice("prior_overlap", prior_overlap, ("refuse", "drop"))
    seed = checks.seed(seed)
    keys = Keys.for_method("regnet", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    known, folds = slots.read_network(ad, network), training_pairs.read_folds(ad, network)
    learnt = training_pairs.FOLDS[fold]
    held = training_pairs.in_folds(folds, [code for code in (1, 2, 3) if code not in learnt])
    further = None if prior is None else prior_edges(ad, prior, held, prior_overlap)
    mask = slots.read_regulators(ad, regulators)
    if regulators is None:
        mask = mask | (folds.getnnz(axis=1) > 0)
    rows = slots.read_matrix(ad, layer)
    varying = rows.summary.std > 0
    scored = training_pairs.scored(mask, varying)
    train = training_pairs.labelled(known, folds, learnt, network)
    from sctrellis.models import LabelledPairs, fit_regnet

    validation = None
    if fold == "train" and patience is not None:
        row, column = training_pairs.in_folds(folds, (training_pairs.VALIDATION,))
        validation = LabelledPairs(row, column, training_pairs.labels(known, row, column))
    result = fit_regnet(
        training_pairs.profiles(rows, seed),
        LabelledPairs(*train),
        scored,
        config=config,
        validation=validation,
        held=held,
        prior=further,
        seed=seed,
        device=device,
        progress=progress,
    )
    used = ["train", "validation"] if fold != "train" or "validation" in result.history else ["train"]
    logs.added(
        write_regnet(
            ad, keys, "regnet", result, config, scored, np.flatnonzero(varying),
            params=record.arguments(regnet, values), seed=seed, layer=layer,
            fit=_counts(train, ad.n_vars), hashes={"folds": fold_hash(folds)},
            extra={"labels_used": network, "folds_used": used},
        )
    )  # fmt: skip
    return root if copy else None


def _config(values: dict[str, Any]) -> "RegNetConfig":
    """Return the checked settings of the model."""
    from sctrellis.models import RegNetConfig

    checks.choice("direction", values["direction"], ("regulators", "targets", "both"))
    checks.choice("aggregator", values["aggregator"], ("mlp", "eb"))
    checks.choice("attn_keys", values["attn_keys"], ("all", "regulators"))
    checks.choice("neg_mode", values["neg_mode"], ("uniform", "per_regulator"))
    checks.choice("reversed_pairs", values["reversed_pairs"], ("learn", "hide"))
    checks.choice("train_messages", values["train_messages"], (True, False))
    for name in ("n_layers", "hidden", "latent", "n_features", "n_neg", "max_epochs"):
        checks.integer(name, values[name])
    if values["patience"] is not None:
        checks.integer("patience", values["patience"])
    checks.number("dropout", values["dropout"], low=0, high=1, open_high=True)
    checks.number("asked_frac", values["asked_frac"], low=0, high=1, open_low=True)
    for name in ("beta", "free_bits", "reconstruction", "entropy"):
        checks.number(name, values[name], low=0)
    checks.number("lr", values["lr"], low=0, open_low=True)
    return RegNetConfig(**{field.name: values[field.name] for field in dataclasses.fields(RegNetConfig)})


def prior_edges(
    ad: "AnnData", prior: str, held: tuple[np.ndarray, np.ndarray], overlap: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return regulator and target of the prior's edges; those between genes of held-out pairs are left to the fit."""
    stored = slots.read_network(ad, prior, argument="prior").tocoo()
    there = (stored.data > 0) & (stored.row != stored.col)
    row, column = stored.row[there].astype(np.int64), stored.col[there].astype(np.int64)
    if not len(row):
        msg = f"`prior`: `adata.varp[{prior!r}]` has no edge (no value above 0). Leave `prior` out."
        raise ValueError(msg)
    asked = sparse.csr_matrix((np.ones(len(held[0]), dtype=bool), held), shape=stored.shape)
    asked = asked + asked.T
    n_told = int(np.asarray(asked[row, column]).sum())
    if n_told and overlap == "refuse":
        msg = (
            f"`prior`: {n_told:,} of the {len(row):,} edges in `adata.varp[{prior!r}]` join the two genes of a pair "
            "that is held out for validation or test, and a message along them could tell its label. Leave them out "
            "with `prior_overlap='drop'`, or pass a prior without them."
        )
        raise ValueError(msg)
    if n_told:
        logs.logger.info("%s: %d of %d edges join genes of held-out pairs and are left out", prior, n_told, len(row))
    return row, column


def _counts(train: tuple[np.ndarray, np.ndarray, np.ndarray], n_genes: int) -> dict[str, int]:
    row, _, label = train
    edges = np.bincount(row[label], minlength=n_genes)
    few = int(((edges > 0) & (edges < _FEW_EDGES)).sum())
    if few:
        logs.logger.info(
            "%d of %d regulators have fewer than %d training edges", few, int((edges > 0).sum()), _FEW_EDGES
        )
    return {"n_train_pairs": len(row), "n_train_edges": int(label.sum()), "n_regulators_with_few_edges": few}
