from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl import _sem
from sctrellis.tl._known import Negatives, known_labels

if TYPE_CHECKING:
    from anndata import AnnData


def infosem(
    adata: "AnnData",
    *,
    embedding: str | None = None,
    known: str | None = None,
    negatives: Negatives = "labelled",
    prior: Literal["mean", "scale"] = "mean",
    conditioning: Literal["auto", "all", "regulators"] = "auto",
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    rho: float | None = None,
    others: float | None = None,
    lam: float = 0.02,
    lam_mean: float | None = None,
    sigma_p: float = 0.5,
    n_components: int = 32,
    warm_start: Literal["precision"] | None = "precision",
    max_epochs: int = 20,
    batch_size: int = 128,
    n_hidden: int = 16,
    beta: float = 1.0,
    lr: float = 2e-3,
    lr_adjacency: float = 0.005,
    n_runs: int = 1,
    keep_stages: bool = False,
    seed: int | None = 0,
    device: str = "auto",
    n_jobs: int | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    save_model: str | Path | None = None,
    mod: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "AnnData | None":
    r"""Infer a network with InfoSEM: a structural equation model with gene embeddings and known edges as priors.

    Expects log-normalised expression. The fit goes in stages: ridge regression of every gene on all others in closed
    form; a convex refit that pulls coefficients towards what the priors say; a short variational autoencoder started
    there. Without ``embedding`` and ``known`` the priors are empty. Edges are directed by the list of regulators, not
    by the data.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    embedding
        Key of ``adata.varm`` with gene embeddings (the prior B), written by :func:`sctrellis.pp.gene_embedding` or
        :func:`sctrellis.pp.text_embedding`. It is used only as far as it predicts coefficients of genes left out.
    known
        Key of ``adata.varp`` with known edges (the prior C), written by :func:`sctrellis.pp.network`. Where
        :func:`sctrellis.pp.split_edges` made folds, only the train fold is read.
    negatives
        Which pairs count as known non-edges: ``"labelled"``, those stored as such; ``"train"``, every pair of the train
        fold without an edge, as supervised methods assume.
    prior
        What the embedding moves: the prior ``"mean"`` of a coefficient, or its prior ``"scale"`` (for networks of mixed
        sign).
    conditioning
        Genes that condition others in the variational stage: ``"all"``; ``"regulators"``, a smaller system for many
        genes, anchored at the start in which all genes condition; ``"auto"``, all up to 5,000 genes.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    layer
        Layer with the expression; None is ``adata.X``.
    rho
        Ridge strength, on the scale of the correlation matrix; None chooses it by cross-validated node-wise error.
    others
        How many times more strongly coefficients of genes that are not regulators are shrunk; None chooses among 1, 10
        and 100 by the same error.
    lam
        L1 penalty per target on what a coefficient deviates from its prior mean.
    lam_mean
        Penalty on the prior means, relative to ``rho``; None chooses it by the reconstruction of held-out cells (1
        above 5,000 genes): the largest that keeps a third of the best one's gain. ``inf`` leaves the embedding out.
    sigma_p
        Standard deviation of the log-odds of a known label; ``inf`` leaves known edges out.
    n_components
        Principal components of the embedding that are used, at most.
    warm_start
        Where the variational stage starts: ``"precision"``, at the solution of the stages before it, which comes from
        the shrunk precision of all genes; None, at an empty network, to see what those stages are worth.
    max_epochs
        Epochs of the variational stage, of at most four batches each; 0 ends with the convex stage.
    batch_size
        Cells in a batch.
    n_hidden
        Width of the hidden layers.
    beta
        Weight of the Kullback-Leibler term, in [0, 2].
    lr
        Learning rate of encoder and decoder.
    lr_adjacency
        Learning rate of the network, relative to the root mean square of its start.
    n_runs
        Variational stages with different seeds, averaged.
    keep_stages
        Also write the network after each stage, and what the priors say of each pair.
    seed
        Seed in [0, 2**32); None draws one and records it.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    n_jobs
        Workers; None is ``settings.n_jobs``, -1 all cores. Runs are independent and agree with
        those of one worker to rounding.
    progress
        Progress bar; None follows ``settings.progress``.
    checkpoint
        Folder for checkpoints of the variational stage, written every ten epochs; a stopped fit called again with it
        resumes.
    save_model
        Folder to write the fitted model to, see :func:`sctrellis.models.load`.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"infosem"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Signed coefficients, row = regulator, column = target; every pair of a varying regulator and a varying gene.
    ``adata.varp[key_added + "_std"]`` : csr_matrix, float32
        Spread over the runs, where ``n_runs > 1``.
    ``adata.varp[key_added + "_ridge" / "_convex" / "_deep"]`` : csr_matrix, float32
        Network after each stage, where ``keep_stages``; so too ``"_prior_mean"`` (or ``"_prior_scale"``) and
        ``"_edge_probability"``.
    ``adata.uns[key_added]`` : dict
        Record of the run. ``fit`` holds what was chosen and learned: ``rho``, ``others``, the share of coefficients'
        variance that the embedding predicts for genes left out, whether it was used, and the weights of the prior mean.
        ``cv`` and ``prior_strength`` have the errors that ``rho``, ``others`` and ``lam_mean`` were chosen by;
        ``labels_used`` names the network whose labels the fit has seen.

    Raises
    ------
    KeyError
        If a layer, column, embedding, network or modality is missing.
    ValueError
        If an argument is out of range, the expression is not log-normalised, ``known`` has no edge to learn from, or a
        checkpoint is of another fit.
    FloatingPointError
        If the loss becomes infinite or NaN.

    Notes
    -----
    With standardised cells :math:`x = xA + z`. The coefficient of regulator i for gene k is
    :math:`A_{ik} = A^e_{ik} A^p_{ik} / 0.5`; :math:`A^e_{ik}` has a prior around
    :math:`\mu_{ik} = w_0 + w_1 f(h_i) + w_2 g(h_k)`, and :math:`A^p_{ik}` is 0.95 for a known edge, 0.05 for a known
    non-edge and 0.5 for an unknown pair, before the data. f and g are ridge regressions of regulators' and targets'
    mean coefficients on the embedding, every gene predicted by a fit that left it out; an embedding that does not
    predict by two standard errors is not used. Labels reach pairs of other genes only through f, g and the weights w.

    The published model fits w by gradient and lets every :math:`A^p` move; dividing by 0.5 keeps the penalty of
    unknown pairs what it is without labels, and the penalty on :math:`\mu` is on the means, not on w.

    Cost: the smaller of cells and genes cubed for the start, times the strengths tried; :math:`O(p^2 G)` per step of
    the convex stage for p regulators and G genes; per step of the variational stage :math:`O(n G h^2)` and the cube of
    the conditioning genes. Equal arguments give equal results on one machine's CPU, close ones on a GPU.

    References
    ----------
    :cite:p:`cui2025infosem`; the structural equation autoencoder is that of :cite:p:`shu2021deepsem`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.tl.infosem(adata, embedding="embedding", keep_stages=True, max_epochs=5)
    >>> sorted(adata.varp)[:4]
    ['infosem', 'infosem_convex', 'infosem_deep', 'infosem_prior_mean']
    """
    values = locals()
    seed = checks.seed(seed)
    workers = checks.n_jobs(n_jobs)
    n_runs = checks.integer("n_runs", n_runs)
    checks.choice("warm_start", warm_start, ("precision", None))
    checks.choice("prior", prior, ("mean", "scale"))
    checks.choice("conditioning", conditioning, ("auto", "all", "regulators"))
    checks.choice("negatives", negatives, ("labelled", "train"))
    shrink_options: dict[str, Any] = {
        "lam": checks.number("lam", lam, low=0),
        "lam_mean": _weight("lam_mean", 1.0 if lam_mean is None else lam_mean),
        "sigma_p": _weight("sigma_p", sigma_p, positive=True),
    }
    options: dict[str, Any] = {
        "rho": None if rho is None else checks.number("rho", rho, low=0, open_low=True),
        "others": None if others is None else checks.number("others", others, low=1),
        "n_components": checks.integer("n_components", n_components),
        "n_epochs": checks.integer("max_epochs", max_epochs, minimum=0),
        "batch_size": checks.integer("batch_size", batch_size, minimum=2),
        "n_hidden": checks.integer("n_hidden", n_hidden),
        "beta": checks.number("beta", beta, low=0, high=2),
        "lr": checks.number("lr", lr, low=0, open_low=True),
        "lr_adjacency": checks.number("lr_adjacency", lr_adjacency, low=0, open_low=True),
    }
    from sctrellis.models import InfoSEMConfig, ShrinkConfig, fit_infosem, resolve_device

    resolved = resolve_device(device)
    keys = Keys.for_method("infosem", key_added)
    _sem.check_folder(save_model)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    mask = slots.read_regulators(ad, regulators)
    rows = slots.read_matrix(ad, layer)
    vectors = None if embedding is None else slots.read_embedding(ad, embedding)
    labels = None if known is None else known_labels(ad, known, mask, negatives)
    everyone = conditioning == "all" or (conditioning == "auto" and ad.n_vars <= 5_000)
    conditioned = ad.n_vars if everyone else int(mask.sum())
    checks.dense_size(
        (8, conditioned, ad.n_vars), "Fitting the network", "Use `conditioning='regulators'`, or select genes first."
    )
    config = InfoSEMConfig(
        shrink=ShrinkConfig(prior=prior, **shrink_options),
        choose_strength=lam_mean is None and prior == "mean",
        warm_start=warm_start == "precision",
        **options,
    )
    bar, on_epoch_end = _sem.epoch_bar(n_runs * max_epochs, "infosem", progress=progress)
    with bar:
        fit = fit_infosem(
            rows,
            mask,
            embedding=vectors,
            labels=labels,
            conditioning=conditioning,
            config=config,
            n_runs=n_runs,
            seed=seed,
            device=resolved,
            n_jobs=workers,
            checkpoint=checkpoint,
            fingerprint=_sem.fingerprint(ad, rows),
            on_epoch_end=on_epoch_end,
        )
    _sem.save_fit(save_model, "infosem", config, fit, ad)
    params = record.arguments(infosem, values)
    logs.added(
        _sem.write_fit(
            ad,
            keys,
            "infosem",
            fit,
            rows=rows,
            regulators=mask,
            params=params,
            seed=seed,
            layer=layer,
            keep_stages=keep_stages,
            labels_used=known,
        )
    )
    return root if copy else None


def _weight(name: str, value: float, *, positive: bool = False) -> float:
    """Return a non-negative number that may be infinite."""
    return (
        value if isinstance(value, float) and value == np.inf else checks.number(name, value, low=0, open_low=positive)
    )
