from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, draws, logs, record, slots
from sctrellis._core.keys import CELL_SPLIT, Keys
from sctrellis.tl import _surrogate, _translate_report
from sctrellis.tl._surrogate import Paired

if TYPE_CHECKING:
    from mudata import MuData

    from sctrellis.models import TranslatorFit

Kind = Literal["cis", "crossmodal"]
MIN_TRAINING = 10
"""Training cells that a group must have."""
_NULL_VALUES = 1_000
_NULL_PERMUTATIONS = 200
"""Values of the null of all genes together, so that its 95 % quantile is one; and permutations at most."""


def translate(
    mdata: "MuData",
    kind: Kind = "cis",
    *,
    groupby: str | None = None,
    targets: str | Sequence[str] | None = None,
    links: str = "cis",
    counts: str | None = "counts",
    layer: str | None = None,
    split: str = CELL_SPLIT,
    n_runs: int = 3,
    n_null: int = 3,
    n_hidden: int = 16,
    group_lasso: float = 2e-3,
    theta: float | None = 8.0,
    pairing: Literal["paired", "unpaired"] = "paired",
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    rna: str = "rna",
    atac: str = "atac",
    layer_added: str | None = None,
    seed: int | None = 0,
    device: str = "auto",
    progress: bool | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> "MuData | None":
    r"""Learn to predict expression from accessibility, and say for which genes anything was learnt.

    Expects paired cells as :func:`sctrellis.pp.multiome` builds them, divided by :func:`sctrellis.pp.split_cells`: the
    surrogate is fitted to the training cells, stopped by the validation cells and judged on the test cells.

    Parameters
    ----------
    mdata
        Paired RNA and ATAC of the same cells. Accessibility is read as 0 and 1, or as values between; larger ones count
        as 1.
    kind
        ``"cis"``
            One small network for each gene, which sees the peaks linked to it and the group of the cell.
        ``"crossmodal"``
            Two autoencoders, of all peaks by chromosome and of all genes, and translators between their codes.
    groupby
        Column of ``mdata.obs``, or of ``.obs`` of a modality, with the group of each cell; None takes all cells as one
        group. What differs between groups is left to an intercept by ``"cis"``, and taken out of ``r_within``.
    targets
        Genes to predict; None is all of them, for ``"cis"`` all that have a linked peak.
    links
        Key of the links of genes to peaks in ``mdata.varp``. ``"cis"`` only.
    counts
        Layer of ``mdata[rna]`` with counts, which ``"cis"`` fits; None fits log-normalised values instead.
    layer
        Layer with the expression; None is the X of ``mdata[rna]``. Log-normalised: ``"crossmodal"`` reads it, and
        ``"cis"`` where there are no counts.
    split
        Column of ``mdata.obs`` that says what each cell is for: train, validation or test.
    n_runs
        Members of an ensemble, which differ by their initial state. ``"cis"`` only.
    n_null
        Times that ``"cis"`` is fitted again to permuted pairs, to tell chance from learning; 0 does without.
        ``"crossmodal"`` is not fitted again: it is compared with permuted test cells.
    n_hidden
        Hidden units of each gene and run. ``"cis"`` only.
    group_lasso
        Weight of the summed lengths of the peaks' vectors. ``"cis"`` only.
    theta
        Inverse dispersion of the counts; None learns one for each gene. ``"cis"`` only.
    pairing
        ``"paired"`` lets ``"crossmodal"`` compare the two codes of a cell; ``"unpaired"`` aligns them by adversaries
        alone, as published.
    max_epochs
        Epochs at most, for ``"crossmodal"`` in each of its three stages; None is as many as 660 steps need for
        ``"cis"``, and 1,500 steps for each stage of ``"crossmodal"``.
    batch_size
        Cells in a step; None is 256 for ``"cis"``, 128 for ``"crossmodal"``.
    lr
        Learning rate; None is 0.005 for ``"cis"``, and the published rates for ``"crossmodal"``.
    rna, atac
        Names of the modalities.
    layer_added
        Layer of ``mdata[rna]`` for the predicted log expression of all cells; None writes none.
    seed
        Seed in [0, 2**32); None draws one and records it. It decides the initial state, the order of cells and the
        permutations.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    progress
        Progress bar over epochs; None follows ``settings.progress``.
    key_added
        Name of the slots; None is ``"translate"``.
    copy
        Return a copy with the result instead of writing to ``mdata``.

    Returns
    -------
    `None`, or the copy if ``copy=True``. Sets:

    ``mdata.uns[key_added]`` : dict
        Record of the run, with ``surrogate`` and ``weights``, which :func:`sctrellis.models.load_translator` rebuilds
        the surrogate from, and three tables of quality on the test cells.

        ``genes``, a row for each gene: its ``mean``; Pearson's ``r`` of observed and predicted log expression, and
        ``r_within``, of deviations from the means of groups; ``null_q95``, ``null_p`` and ``learned`` (see Notes);
        ``deviance``, the share that the surrogate explains of the deviance left by the groups' means in the training
        cells, negative where it does worse; ``calibration_slope`` of observed on predicted expression within groups, 1
        where effects have the right size.

        ``by_group``, a row for each gene and group: ``observed`` and ``predicted`` mean expression, ``r`` within the
        group, its ``null_q95``, and ``learned``.

        ``groups``, a row for each group: its numbers of cells, and ``r_of_means``, Pearson's r over genes of observed
        and predicted mean expression.
    ``mdata[rna].layers[layer_added]`` : float32, shape (n_obs, n_genes)
        Predicted log expression: of ``"cis"`` fitted to counts, the log of the expected count. NaN for genes that were
        not fitted.
    ``mdata[rna].obsm["X_" + key_added]``, ``mdata[atac].obsm["X_" + key_added]`` : float32, shape (n_obs, 20)
        ``"crossmodal"`` only: the code of the RNA and, in the same space, that translated from the ATAC of each cell.

    Raises
    ------
    KeyError
        If links, split, groups, a layer or a modality is missing.
    ValueError
        If a group has fewer than 10 training cells, no gene has a linked peak, or values are out of range.
    TypeError
        If an argument has the wrong type.
    FloatingPointError
        If the loss stops being finite.

    Notes
    -----
    ``"cis"`` predicts, with :math:`x_{cj}` the accessibility of peak :math:`j` in cell :math:`c` of group
    :math:`t(c)`,

    .. math:: F_g(c) = a_{g,t(c)} + \log \mathrm{size}_c
              + \sum_u w_{gu} \, \mathrm{ReLU}\Bigl(b_{gu} + \sum_{j \in \mathrm{cis}(g)} x_{cj} U_{gju}\Bigr),

    the log mean of a negative binomial, where the size of a cell is its total count over the mean total. Because every
    group has an intercept of its own, the network learns from how cells of one group differ. The penalty
    :math:`\lambda \sum_j \|U_{gj}\|_2` on whole peaks is followed by its gradient, not by a proximal step: lengths
    come close to 0 without reaching it. Each gene keeps the state of the epoch with its smallest loss on the validation
    cells. Genes share nothing, and start from what their name, the peaks' names and the seed decide: the same gene is
    fitted alike, up to rounding, in any selection and order of genes and peaks.

    The null keeps the accessibility and permutes the expression among cells of the same group and part of the split, so
    that means of groups stay and nothing else can be learnt. What a refit predicts is compared with its own permuted
    test cells and, where genes are few, with further permutations of them, until there are 1,000 values.
    ``null_q95`` is the 95 % quantile of ``r_within`` over these values of all genes together, ``null_p`` the share of
    them that reach the gene's own, one more counted, and a gene is ``learned`` if its ``r_within`` is above that
    quantile: of genes about which nothing can be learnt, 5 % are. Do not interpret the others. Expression is relative
    to the total of a cell: ``"crossmodal"``, which sees the elements of all genes, can learn of a gene what those of
    other genes do to that total, so that ``learned`` does not say that its own peaks act.

    A step of ``"cis"`` costs one sparse sum over the open linked peaks of its cells. Nothing of shape cells x peaks is
    dense. Equal arguments give equal results on the CPU of one machine, close ones on a GPU.

    See the guide for the equations of ``"crossmodal"``, and for where it differs from what was published.

    References
    ----------
    Surrogate of subset perturbations: :cite:p:`liu2024grids`; the reference implementation
    https://github.com/jhliu17/nnpert has no licence, and none of it is used. Regression of expression on accessibility:
    :cite:p:`mitra2024scarlink`.

    Examples
    --------
    >>> import sctrellis as tr
    >>> mdata = tr.datasets.simulate_multiome(400, 240, 8, n_targets=4, seed=1)
    >>> tr.tl.translate(mdata, groupby="cell_group", n_runs=1, max_epochs=30)
    >>> table = tr.get.record(mdata, "translate")["genes"]
    >>> bool(table.loc[mdata.uns["targets"]["target"], "learned"].mean() >= 0.5)
    True
    """
    values = locals()
    from sctrellis.models import resolve_device

    checks.choice("kind", kind, get_args(Kind))
    checks.choice("pairing", pairing, ("paired", "unpaired"))
    checks.integer("n_runs", n_runs)
    options = _options(max_epochs, batch_size, lr)
    checks.integer("n_null", n_null, minimum=0)
    for name, chosen in (("layer_added", layer_added), ("links", links)):
        if chosen is not None:
            checks.slot_name(name, chosen)
    seed = checks.seed(seed)
    keys = Keys.for_method("translate", key_added)
    genes, peaks = slots.multiome(mdata, rna, atac)
    counts = _counts(genes, counts, rna) if kind == "cis" else None
    paired = _surrogate.read_paired(mdata, groupby=groupby, counts=counts, layer=layer, split=split, rna=rna, atac=atac)
    _enough(paired, groupby)
    at = resolve_device(device)
    wanted = np.arange(genes.n_vars) if targets is None else checks.gene_positions("targets", targets, genes.var_names)
    if kind == "cis":
        settings = {
            "n_hidden": checks.integer("n_hidden", n_hidden),
            "group_lasso": checks.number("group_lasso", group_lasso, low=0),
            "theta": None if theta is None else checks.number("theta", theta, low=0, open_low=True),
            **options,
        }
        near = _linked(slots.read_cis(mdata, links, rna=rna, atac=atac), wanted, genes, named=targets is not None)
        n_fitted = int((np.diff(near.indptr) > 0).sum())
        partners = _translate_report.permuted_partners(paired, _n_permutations(n_null, n_fitted), seed)
        names = draws.hashes(genes.var_names), draws.hashes(peaks.var_names)
        fitted = _fit_cis(paired, near, partners[:n_null], names, settings, n_runs, seed, at, progress=progress)
    else:
        partners = _translate_report.permuted_partners(paired, _n_permutations(n_null, len(wanted)), seed)
        chrom = _chromosomes(peaks, atac)
        fitted = _fit_crossmodal(paired, chrom, wanted, pairing, options, seed, at, progress=progress)
    added = _added(fitted, paired, keys, layer_added, genes.shape, rna, atac)
    entry = record.build(
        "translate",
        mdata,
        params=record.arguments(translate, {**values, "counts": counts}),
        seed=seed,
        slots={"surrogate": f"uns/{keys.record}", **{name: f"{mod}/{slot}/{key}" for name, mod, slot, key, _ in added}},
        layer=counts or layer,
        fit=fitted.fit,
        history=fitted.history,
        weights=fitted.weights,
        extra={
            "surrogate": {
                **fitted.surrogate,
                "n_genes": genes.n_vars,
                "n_peaks": peaks.n_vars,
                "rna_sha256": record.genes_hash(genes.var_names),
                "atac_sha256": record.genes_hash(peaks.var_names),
            },
            **_quality(paired, fitted, genes.var_names, partners),
        },
    )
    root = mdata.copy() if copy else mdata
    written = slots.write(root, uns={keys.record: entry})
    for _, mod, slot, key, value in added:
        written += [f"[{mod!r}].{name}" for name in slots.write(root.mod[mod], **{slot: {key: value}})]
    logs.added(written)
    return root if copy else None


def _options(max_epochs: int | None, batch_size: int | None, lr: float | None) -> dict[str, Any]:
    """Return the training settings that were given, checked."""
    given: dict[str, Any] = {}
    if max_epochs is not None:
        given["max_epochs"] = checks.integer("max_epochs", max_epochs)
    if batch_size is not None:
        given["batch_size"] = checks.integer("batch_size", batch_size, minimum=2)
    if lr is not None:
        given["lr"] = checks.number("lr", lr, low=0, open_low=True)
    return given


def _counts(genes: Any, counts: str | None, rna: str) -> str | None:
    """Return the layer of counts; None, with a warning, where the usual one is not there."""
    if counts == "counts" and counts not in genes.layers:
        checks.warn(
            f"`mdata[{rna!r}]` has no layer 'counts': log-normalised values are fitted with a Gaussian likelihood. "
            "Name the layer of counts with `counts=`, or pass `counts=None` to have it so."
        )
        return None
    return counts


def _enough(paired: Paired, groupby: str | None) -> None:
    trained = np.bincount(paired.groups[paired.split["train"]], minlength=len(paired.group_names))
    i = int(trained.argmin())
    if trained[i] < MIN_TRAINING:
        where = "`mdata`" if groupby is None else f"Group {paired.group_names[i]!r} of `groupby={groupby!r}`"
        msg = (
            f"{where} has {trained[i]} training cells; at least {MIN_TRAINING} are needed. Merge the group with "
            "another or drop its cells, or split the cells again with `sctrellis.pp.split_cells`."
        )
        raise ValueError(msg)


def _n_permutations(n_null: int, n_genes: int) -> int:
    """Return how often test cells are permuted: each refit's own pairs, and more where there are few genes."""
    return max(n_null, min(-(-_NULL_VALUES // n_genes), _NULL_PERMUTATIONS)) if n_null else 0


def _linked(distances: sparse.csr_matrix, wanted: np.ndarray, genes: Any, *, named: bool) -> sparse.csr_matrix:
    """Return the links of the wanted genes, those without any left out and said."""
    n_linked = np.diff(distances.indptr)
    without = wanted[n_linked[wanted] == 0]
    if len(without) == len(wanted):
        msg = (
            f"None of the {len(wanted):,} genes has a linked peak. Widen the window of `sctrellis.pp.cis_links`, or "
            "check that genes and peaks have coordinates of the same genome."
        )
        raise ValueError(msg)
    if len(without):
        said = f"{len(without):,} of {len(wanted):,} genes have no linked peak and are not fitted"
        said += f" ({checks.some(genes.var_names[without])})."
        if named:
            checks.warn(said)
        else:
            logs.logger.info(said)
    kept = np.zeros(len(n_linked), dtype=bool)
    kept[wanted] = True
    rows = np.where(kept, n_linked, 0)
    stored = np.repeat(kept, n_linked)
    index = distances.indices[stored]
    indptr = np.concatenate([[0], np.cumsum(rows)])
    return sparse.csr_matrix((np.ones(len(index), np.float32), index, indptr), shape=distances.shape)


def _fit_cis(
    paired: Paired,
    near: sparse.csr_matrix,
    partners: np.ndarray,
    names: tuple[np.ndarray, np.ndarray],
    settings: Mapping[str, Any],
    n_runs: int,
    seed: int,
    device: Any,
    *,
    progress: bool | None,
) -> "TranslatorFit":
    from sctrellis.models import CisConfig, fit_cis_translator

    config = CisConfig(likelihood="nb" if paired.sized else "gaussian", **settings)
    with logs.progress_bar(config.n_epochs(len(paired.split["train"])), "translate", progress=progress) as bar:

        def show(epoch: int, means: Mapping[str, float]) -> None:
            bar.set_postfix(misfit=f"{means['misfit']:.4g}")
            bar.update()

        return fit_cis_translator(
            paired.accessibility,
            paired.expression,
            near,
            groups=paired.groups,
            log_size=paired.log_size,
            split=paired.split,
            config=config,
            gene_keys=names[0],
            peak_keys=names[1],
            n_runs=n_runs,
            null_rows=partners,
            seed=seed,
            device=device,
            on_epoch_end=show,
        )


def _fit_crossmodal(
    paired: Paired,
    chrom: np.ndarray,
    wanted: np.ndarray,
    pairing: Literal["paired", "unpaired"],
    settings: Mapping[str, Any],
    seed: int,
    device: Any,
    *,
    progress: bool | None,
) -> "TranslatorFit":
    from sctrellis.models import CrossmodalConfig, fit_crossmodal

    config = CrossmodalConfig(pairing=pairing, **settings)
    with logs.progress_bar(3 * config.n_epochs(len(paired.split["train"])), "translate", progress=progress) as bar:

        def show(epoch: int, means: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            bar.update()

        return fit_crossmodal(
            paired.accessibility,
            paired.expression,
            pd.factorize(chrom)[0],
            groups=paired.groups,
            split=paired.split,
            genes=wanted,
            config=config,
            seed=seed,
            device=device,
            on_epoch_end=show,
        )


def _chromosomes(peaks: Any, atac: str) -> np.ndarray:
    checks.has_slot(
        "atac", "chrom", peaks.var.columns, f"mdata[{atac!r}].var", "`sctrellis.pp.multiome` reads the peaks' places."
    )
    return peaks.var["chrom"].astype(str).to_numpy()


def _quality(paired: Paired, fitted: "TranslatorFit", names: pd.Index, partners: np.ndarray) -> dict[str, pd.DataFrame]:
    """Return the tables of quality on the test cells."""
    from sctrellis.models import load_translator

    translator = load_translator({"surrogate": fitted.surrogate, "weights": fitted.weights})
    test = paired.split["test"]
    predicted = translator.predict_all(paired.accessibility[test], paired.groups[test], np.zeros(len(test), np.float32))
    columns = fitted.weights["genes"]
    found = _translate_report.report(
        paired,
        names[columns],
        predicted,
        columns,
        theta=fitted.theta,
        # Where nothing was fitted to permuted pairs, they are compared with the predictions themselves.
        null=predicted[None] if fitted.null is None else fitted.null,
        null_rows=partners[:, test],
    )
    n_learned = int(found.genes["learned"].sum())
    logs.logger.info("something was learnt within groups for %d of %d genes", n_learned, len(found.genes))
    return {"genes": found.genes, "by_group": found.by_group, "groups": found.groups}


def _added(
    fitted: "TranslatorFit",
    paired: Paired,
    keys: Keys,
    layer_added: str | None,
    shape: tuple[int, int],
    rna: str,
    atac: str,
) -> list[tuple[str, str, str, str, np.ndarray]]:
    """Return what is written to the modalities: its name in the record, modality, slot, key and value."""
    from sctrellis.models import load_translator

    found = [
        (f"latent_{which}", mod, "obsm", f"X_{keys.base}", fitted.latent[which])
        for which, mod in (("rna", rna), ("atac", atac))
        if fitted.latent
    ]
    if layer_added is not None:
        checks.dense_size(shape, "The layer of predictions", "Leave `layer_added` out, or name `targets`.")
        translator = load_translator({"surrogate": fitted.surrogate, "weights": fitted.weights})
        layer = np.full(shape, np.nan, dtype=np.float32)
        layer[:, fitted.weights["genes"]] = translator.predict_all(paired.accessibility, paired.groups, paired.log_size)
        found.append(("predicted", rna, "layers", layer_added, layer))
    return found
