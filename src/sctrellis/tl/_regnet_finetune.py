import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl import _training_pairs as training_pairs
from sctrellis.tl._fitted_regnet import fold_hash, read_regnet, write_regnet
from sctrellis.tl._regnet import prior_edges

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sctrellis.models import LabelledPairs, RegNet

_MIN_SHARED = 10


def regnet_finetune(
    adata: "AnnData | MuData",
    source: "AnnData",
    *,
    source_key: str = "regnet",
    held_out: str | None = None,
    prior: str | None = None,
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    mask_frac: float = 0.1,
    contrast: float = 0.1,
    relational: float = 1.0,
    temperature: float = 0.07,
    ewc: float = 0.05,
    n_fisher: int = 512,
    max_epochs: int = 30,
    lr: float = 2e-4,
    patience: int | None = 5,
    seed: int | None = 0,
    device: str = "auto",
    progress: bool | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | MuData | None":
    r"""Move a RegNet that was fitted on other cells to these, without any label of theirs, and score every pair.

    Expects log-normalised expression. Genes are matched by name; the source's graph comes along for the genes that both
    have. No known edge of `adata` is read: whatever its networks say, the result is the same.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    source
        AnnData that :func:`sctrellis.tl.regnet` was run on, with its genes unchanged.
    source_key
        Key of that run in ``source.uns``.
    held_out
        Key of a known network in ``adata.varp`` that the result will be judged on: no message runs between the two
        genes of a pair of its validation and test folds. Only the folds are read, not the labels. None lets the
        source's graph stand.
    prior
        Key of further edges in ``adata.varp`` along which messages run.
    regulators
        Regulators to score: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    layer
        Layer with the expression; None is ``adata.X``.
    mask_frac
        Share of the features that are hidden in a step, and predicted from the rest, in (0, 1).
    contrast
        Weight of the contrast along the edges of the graph.
    relational
        Weight of the squared difference between the latent vectors' cosines and those in the source.
    temperature
        Temperature of the contrast.
    ewc
        Share of the loss that the pull to the source's weights makes up when it sets in, after the first epoch, in
        [0, 1); 0 leaves it out.
    n_fisher
        Training pairs of the source that say which weights matter for its edges.
    max_epochs
        Epochs at most, of 10 steps each.
    lr
        Learning rate.
    patience
        Epochs without a smaller loss on fixed masks before training stops and returns to its best state; None trains to
        the end.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides masks, dropout, latent noise, the pairs and genes
        drawn, and which cells are drawn of more than 2,000.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    progress
        Progress bar over epochs; None follows ``settings.progress``.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"regnet_finetune"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]``, ``adata.varp[key_added + "_prob"]``, ``adata.varp[key_added + "_std"]``
        Log-odds at the source's share of edges, their probability and standard deviation; see
        :func:`sctrellis.tl.regnet`.
    ``adata.varm["X_" + key_added]`` : float32, shape (n_vars, latent)
        Mean of each gene's latent vector.
    ``adata.var[key_added + "_gate"]`` : float32
        Mean share of the attention's context in a gene's features.
    ``adata.uns[key_added]`` : dict
        Record of the run, as of :func:`sctrellis.tl.regnet`. ``source`` names the network and the folds that the source
        has learnt from, with the hashes of its folds and graph; ``fit["aligned"]`` is the share of the shared genes'
        features in the source that those of these cells explain.

    Raises
    ------
    KeyError
        If a slot named is missing, or the source's network or folds and `ewc` is not 0.
    ValueError
        If the run in `source` is of another method or of other genes, fewer than 10 genes are shared, or a setting is
        out of range.
    TypeError
        If an argument has the wrong type.
    FloatingPointError
        If the loss stops being finite.

    Notes
    -----
    *Features* are coordinates on principal axes of the cells, which for other cells are other axes. They are turned
    (orthogonal Procrustes, a rotation) so that the shared genes come to lie as near as they can to where they lie in
    the source; distances between genes stay those of these cells. With fewer shared genes than axes, part of the
    rotation is arbitrary.

    *Loss.* (1) Mean squared error of hidden features, with gradients through the whole model; (2) `contrast` times
    :math:`-c_{ij} / t + \log \sum_{k \ne i} e^{c_{ik} / t}` along the edges of the graph, :math:`c` being the cosine of
    latent means; (3) `relational` times the mean squared difference of row-centred cosines from those of the shared
    genes in the source; (2) and (3) on at most 2,048 genes, drawn in each step; (4) the divergence as in the source;
    (5) a pull to the old weights, :math:`\lambda \sum_k F_k (\theta_k - \theta_k^*)^2` (elastic weight consolidation),
    where :math:`F` is the mean over training pairs of the source of the squared gradient of one pair's cross-entropy.
    The head is kept as it is. Training stops on (1) to (4) at fixed draws.

    The published fine-tuning stops on the target's labels, squares the gradient of a whole batch for :math:`F`, which
    is near zero, keeps the gradient of (1) from the encoder, and starts its first layer anew. None of this is so here;
    its prototype and discrepancy losses are left out.

    If both data sets are judged on one reference network, the source has learnt edges that the target is asked about:
    split both with the same seed, which divides by names, and name the network as `held_out`.

    Equal arguments give equal results on the CPU of one machine, close ones on a GPU.

    References
    ----------
    Contrast: :cite:p:`oord2018cpc`; elastic weight consolidation: :cite:p:`kirkpatrick2017ewc`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.pp.split_edges(adata, "network")
    >>> tr.tl.regnet(adata, network="network", max_epochs=1)
    >>> other = adata[::2].copy()
    >>> tr.tl.regnet_finetune(other, adata, n_fisher=16, max_epochs=1)
    >>> other.varm["X_regnet_finetune"].shape
    (30, 64)
    """
    from sctrellis.models import TransferConfig, transfer_regnet

    values = locals()
    checks.number("mask_frac", mask_frac, low=0, high=1, open_low=True, open_high=True)
    checks.number("ewc", ewc, low=0, high=1, open_high=True)
    for name in ("contrast", "relational"):
        checks.number(name, values[name], low=0)
    for name in ("temperature", "lr"):
        checks.number(name, values[name], low=0, open_low=True)
    for name in ("n_fisher", "max_epochs"):
        checks.integer(name, values[name])
    if patience is not None:
        checks.integer("patience", patience)
    seed = checks.seed(seed)
    config = TransferConfig(**{field.name: values[field.name] for field in dataclasses.fields(TransferConfig)})
    keys = Keys.for_method("regnet_finetune", key_added)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    old, model = _source(source, source_key)
    shared = _shared(ad.var_names, source.var_names)
    pairs = _source_pairs(source, old) if ewc > 0 else None
    mask = slots.read_regulators(ad, regulators)
    nobody = np.zeros(0, np.int64), np.zeros(0, np.int64)
    held = nobody if held_out is None else training_pairs.in_folds(training_pairs.read_folds(ad, held_out), (2, 3))
    further = None if prior is None else prior_edges(ad, prior, held, "drop")
    rows = slots.read_matrix(ad, layer)
    varying = rows.summary.std > 0
    scored = training_pairs.scored(mask, varying)
    result = transfer_regnet(
        model,
        training_pairs.profiles(rows, seed),
        scored,
        shared=shared,
        config=config,
        pairs=pairs,
        held=held,
        prior=further,
        seed=seed,
        device=device,
        progress=progress,
    )
    params = record.arguments(regnet_finetune, values)
    params.pop("source")
    logs.added(
        write_regnet(
            ad, keys, "regnet_finetune", result, model.config, scored, np.flatnonzero(varying),
            params=params, seed=seed, layer=layer, fit={}, hashes={},
            extra={
                "source": {"network": old["labels_used"], "folds_used": old["folds_used"], "hashes": old["hashes"]}
            },
        )
    )  # fmt: skip
    return root if copy else None


def _source(source: Any, key: str) -> tuple[dict[str, Any], "RegNet"]:
    from anndata import AnnData

    if not isinstance(source, AnnData):
        msg = (
            f"Expected `source` to be an AnnData that `sctrellis.tl.regnet` was run on, found {type(source).__name__}."
        )
        raise TypeError(msg)
    return read_regnet(source, key, methods=("regnet",), argument="source_key", owner="source")


def _shared(mine: Any, theirs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the genes that both have."""
    place = theirs.get_indexer(mine)
    found = np.flatnonzero(place >= 0)
    if len(found) < _MIN_SHARED:
        msg = (
            f"`source` and `adata` share {len(found)} genes by name; at least {_MIN_SHARED} are needed. First names: "
            f"{checks.some(theirs)} and {checks.some(mine)}. Do both use the same identifiers?"
        )
        raise ValueError(msg)
    return found, place[found].astype(np.int64)


def _source_pairs(source: "AnnData", old: dict[str, Any]) -> "LabelledPairs":
    """Return the labelled pairs that the source has learnt from."""
    from sctrellis.models import LabelledPairs

    network = old["labels_used"]
    known, folds = slots.read_network(source, network, argument="source"), training_pairs.read_folds(source, network)
    if fold_hash(folds) != old["hashes"]["folds"]:
        msg = (
            f"`source`: the folds of {network!r} have changed since its RegNet was fitted. Fit it again, or leave the "
            "pull to its weights out with `ewc=0`."
        )
        raise ValueError(msg)
    return LabelledPairs(*training_pairs.labelled(known, folds, training_pairs.FOLDS[old["params"]["fold"]], network))
