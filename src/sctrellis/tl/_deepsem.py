from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.tl import _sem

if TYPE_CHECKING:
    from anndata import AnnData


def deepsem(
    adata: "AnnData",
    *,
    regulators: str | Sequence[str] | None = None,
    layer: str | None = None,
    alpha: float = 100.0,
    beta: float = 1.0,
    max_epochs: int = 90,
    batch_size: int = 64,
    n_hidden: int = 128,
    lr: float = 1e-4,
    lr_adjacency: float = 2e-5,
    lr_decay: float = 0.95,
    n_runs: int = 1,
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
    r"""Infer a network with DeepSEM, a variational autoencoder mixed by the network, in its published setting.

    Expects log-normalised expression of up to some 2,000 genes (regulators and variable genes). The network is far
    from converged when training ends; that is part of the method, and more epochs make it worse.
    :func:`sctrellis.tl.infosem` without priors is the faster and at least equally accurate relative.

    Parameters
    ----------
    adata
        Cells x genes; a MuData with ``mod``. Backed and dask matrices are streamed.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names. All genes condition each other in the fit; only the regulators' edges
        are written.
    layer
        Layer with the expression; None is ``adata.X``.
    alpha
        Weight of the mean absolute adjacency. The L1 penalty per target is ``alpha / (beta * n_vars)``.
    beta
        Weight of the Kullback-Leibler term.
    max_epochs
        Epochs; one for encoder and decoder is followed by two for the adjacency.
    batch_size
        Cells in a batch.
    n_hidden
        Width of the hidden layers.
    lr
        Learning rate of encoder and decoder.
    lr_adjacency
        Learning rate of the adjacency.
    lr_decay
        Factor of ``lr`` per epoch. The published schedule decays or not with the torch version; here it is explicit.
    n_runs
        Fits with different seeds, averaged.
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
        Folder for checkpoints, written every ten epochs; a stopped fit called again with it resumes.
    save_model
        Folder to write the fitted model to, see :func:`sctrellis.models.load`.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Name of the slots; None is ``"deepsem"``.
    copy
        Return a copy with the result instead of writing to ``adata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``adata.varp[key_added]`` : csr_matrix, float32, shape (n_vars, n_vars)
        Signed adjacency, row = regulator, column = target; every pair of a varying regulator and a varying gene.
    ``adata.varp[key_added + "_std"]`` : csr_matrix, float32
        Spread over the runs, where ``n_runs > 1``.
    ``adata.uns[key_added]`` : dict
        Record of the run, with ``history`` and the trained ``weights``.

    Raises
    ------
    KeyError
        If a layer, column or modality is missing.
    ValueError
        If an argument is out of range, the expression is not log-normalised, or a checkpoint is of another fit.
    FloatingPointError
        If the loss becomes infinite or NaN.

    Notes
    -----
    With :math:`A` the adjacency and :math:`f, g` networks of one gene's value, shared by all genes,
    :math:`z = f(x)(I - A) + \epsilon` and :math:`\hat x = g(z (I - A)^{-1})`. The loss is the mean squared error, plus
    ``beta`` times a one-sample KL of the latent to a learned per-gene normal, plus ``alpha`` times the mean
    :math:`|A|`. One mixture component is fitted. Cost: per batch of n cells :math:`O(n G h^2 + G^3)`; the system is
    solved, not inverted. Equal arguments give equal results on one machine's CPU, close ones on a GPU.

    References
    ----------
    :cite:p:`shu2021deepsem`. Settings are those of its authors for networks that are not cell-type specific.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.toy()
    >>> tr.tl.deepsem(adata, max_epochs=3, n_hidden=8)
    >>> tr.get.edges(adata, "deepsem", n_top=2).columns.tolist()
    ['source', 'target', 'weight', 'score']
    """
    values = locals()
    seed = checks.seed(seed)
    workers = checks.n_jobs(n_jobs)
    n_runs = checks.integer("n_runs", n_runs)
    options: dict[str, Any] = {
        "alpha": checks.number("alpha", alpha, low=0),
        "beta": checks.number("beta", beta, low=0),
        "n_epochs": checks.integer("max_epochs", max_epochs),
        "batch_size": checks.integer("batch_size", batch_size, minimum=2),
        "n_hidden": checks.integer("n_hidden", n_hidden),
        "lr": checks.number("lr", lr, low=0, open_low=True),
        "lr_adjacency": checks.number("lr_adjacency", lr_adjacency, low=0, open_low=True),
        "lr_decay": checks.number("lr_decay", lr_decay, low=0, high=1, open_low=True),
    }
    from sctrellis.models import DeepSEMConfig, fit_deepsem, resolve_device

    resolved = resolve_device(device)
    keys = Keys.for_method("deepsem", key_added)
    _sem.check_folder(save_model)
    root, ad = slots.target(adata, copy=copy, mod=mod)
    mask = slots.read_regulators(ad, regulators)
    rows = slots.read_matrix(ad, layer)
    checks.dense_size((4, ad.n_vars, ad.n_vars), "Training a genes x genes network", "Select genes first.")
    config = DeepSEMConfig(**options)
    bar, on_epoch_end = _sem.epoch_bar(n_runs * max_epochs, "deepsem", progress=progress)
    with bar:
        fit = fit_deepsem(
            rows,
            mask,
            config=config,
            n_runs=n_runs,
            seed=seed,
            device=resolved,
            n_jobs=workers,
            checkpoint=checkpoint,
            fingerprint=_sem.fingerprint(ad, rows),
            on_epoch_end=on_epoch_end,
        )
    _sem.save_fit(save_model, "deepsem", config, fit, ad)
    params = record.arguments(deepsem, values)
    logs.added(
        _sem.write_fit(ad, keys, "deepsem", fit, rows=rows, regulators=mask, params=params, seed=seed, layer=layer)
    )
    return root if copy else None
