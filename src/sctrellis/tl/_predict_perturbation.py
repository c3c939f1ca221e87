from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import checks, logs, record, slots
from sctrellis.metrics import shuffled_network
from sctrellis.tl import _perturbed

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Units = Literal["standardised", "expression"]
# Slots of a record that hold coefficients of expression, by method, and their units.
_COEFFICIENTS: dict[str, tuple[Units, tuple[str, ...]]] = {
    "infosem": ("standardised", ("network", "ridge", "convex", "deep")),
    "ridge": ("standardised", ("network",)),
    "simulate_grn": ("expression", ("effects",)),
}
_UNSIGNED = ("gbm", "degree", "random")
_QUANTILE = 0.99
_LARGEST_SHUFFLED = 0.95
_POWER_ITERATIONS = 200


def predict_perturbation(
    adata: "AnnData | MuData",
    key: str,
    perturbed: str | Sequence[str | Sequence[str]],
    *,
    level: Literal["knockout", "overexpress"] | float | Mapping[str, float] = "knockout",
    n_steps: int | None = None,
    units: Units | None = None,
    max_radius: float | None = None,
    groupby: str | None = None,
    control: str | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    seed: int | None = 0,
    device: str = "auto",
    mod: str | None = None,
) -> "AnnData":
    r"""Predict expression after knocking genes out or over-expressing them, by propagation through a signed network.

    Expects log-normalised expression and a network of coefficients, such as those of :func:`sctrellis.tl.infosem` or
    of :func:`sctrellis.tl.baseline` with ``"ridge"``. Beside the prediction stand those of baselines that it has to
    beat; :func:`sctrellis.tl.evaluate_perturbation` compares them with observed perturbations.

    Parameters
    ----------
    adata
        Object with the network in ``.varp``; a MuData with ``mod``. Without `groupby` all cells count as control.
    key
        The network: a key of ``adata.varp``. Infer it from control cells only if perturbed ones are to be predicted.
    perturbed
        A gene, or a sequence with one entry per perturbation: a gene, or several that are perturbed together, given as
        a sequence or joined as in ``"STAT1+IRF1"``.
    level
        What perturbed genes are held at: ``"knockout"`` is 0, ``"overexpress"`` the gene's 99th percentile over the
        control cells, a number that level of log-normalised expression, and a mapping one level for each gene.
    n_steps
        How far effects travel: 1 reaches direct targets only. None is the steady state.
    units
        What a coefficient of 1 means: ``"standardised"``, one standard deviation of the target per standard deviation
        of the regulator; ``"expression"``, one unit per unit. None reads it from the record of the network, and raises
        where that does not say that the scores are coefficients.
    max_radius
        Where the spectral radius of the network is larger, all effects are scaled down to it, in (0, 1). None leaves
        the network as it is, and raises if effects do not die out.
    groupby
        Column of ``adata.obs`` with the perturbation of each cell, for baselines that learn from observed
        perturbations. None leaves these baselines out.
    control
        Label of the control cells in `groupby`.
    embedding
        Key of ``adata.varm`` with the genes' vectors for the baselines ``"linear"`` and ``"knn"``. None takes the
        genes' loadings on the first ten principal components of the control cells.
    layer
        Layer with the expression; None is ``adata.X``.
    seed
        Seed of the shuffled network and of the baselines, in [0, 2**32); None draws one and records it.
    device
        Torch device: ``"auto"`` takes CUDA when present, else the CPU; a device that is missing raises.
    mod
        Modality to use where ``adata`` is a MuData.

    Returns
    -------
    AnnData
        New, one row per perturbation, named as ``"STAT1"`` or ``"STAT1+IRF1"``, the genes of ``adata``, and

        ``X`` : float32
            Predicted mean expression: mean of the control cells plus the network's change, not below 0.
        ``layers`` : float32
            Predicted *change* by each method: ``"network"``; ``"no_change"`` (0); ``"shuffled"``, the same propagation
            through a network of the same degrees, see :func:`sctrellis.metrics.shuffled_network`; and with `groupby`
            ``"train_mean"``, ``"additive"`` (where there are combinations), ``"linear"`` and ``"knn"`` from *other*
            observed perturbations, see :func:`sctrellis.metrics.perturbation_baselines`.
        ``obs["n_genes"]``, ``obs["n_edges"]`` : int
            Genes perturbed, and edges that leave them.
        ``var["control_mean"]``, ``var["control_std"]`` : float
            Of the control cells.
        ``uns["predict_perturbation"]`` : dict
            Record of the run; ``levels`` has the level of each perturbed gene, ``fit`` the spectral radius, the factor
            that effects were scaled by, and the same for the shuffled network.

    Raises
    ------
    KeyError
        If the network, a column, layer, embedding or modality is missing.
    ValueError
        If a gene is not in ``adata.var_names``, the network holds probabilities, importances or correlations rather
        than coefficients, or its spectral radius is 1 or more.

    Notes
    -----
    With coefficients :math:`A` and changes :math:`x`, the genes that are not held solve :math:`x = x A`; those held
    do not listen to their regulators. One factorised system of the regulators serves all perturbations, and nothing is
    inverted: O(p^3 + p G) per gene perturbed, for p regulators and G genes.

    The steady state exists as the sum of effects over paths of any length if the spectral radius of :math:`A` is
    below 1. A shuffled network with a radius above both 0.95 and that of the network is scaled down to the larger.

    A warning about meaning: where all genes are regulators, a node-wise ridge regression is one symmetric precision
    matrix, and its propagation equals the regression of each gene on the perturbed one alone. It is correlation; only
    the list of regulators, priors and thinned-out edges make anything else of it.

    References
    ----------
    :cite:p:`kernfeld2023pereggrn` and :cite:p:`ahlmanneltze2025` for the baselines, and for how seldom they are beaten.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(200, 40, 8)
    >>> tr.tl.baseline(adata, "ridge")
    >>> genes = list(adata.var_names[adata.var["is_regulator"]][:2])
    >>> predicted = tr.tl.predict_perturbation(adata, "ridge", [*genes, genes])
    >>> predicted.shape, sorted(predicted.layers)
    ((3, 40), ['network', 'no_change', 'shuffled'])
    """
    values = locals()
    from anndata import AnnData

    from sctrellis.models import resolve_device

    seed = checks.seed(seed)
    if n_steps is not None:
        n_steps = checks.integer("n_steps", n_steps)
    if max_radius is not None:
        max_radius = checks.number("max_radius", max_radius, low=0, high=1, open_low=True, open_high=True)
    checks.choice("units", units, ("standardised", "expression", None))
    if (groupby is None) != (control is None):
        given, missing = ("groupby", "control") if control is None else ("control", "groupby")
        msg = f"`{given}` is given without `{missing}`: together they say which cells are control."
        raise ValueError(msg)
    resolved = resolve_device(device)
    _, ad = slots.target(adata, mod=mod)
    network = slots.read_network(ad, key, argument="key")
    network.setdiag(0)
    network.eliminate_zeros()
    found_units, n_obs_network = _units(ad, key, network, units)
    wanted = _read_perturbed(perturbed, ad.var_names)

    if groupby is None:
        screen, rows = None, slots.read_matrix(ad, layer)
        mean, std = rows.summary.mean, rows.summary.std
        cells = np.ones(ad.n_obs, dtype=bool)
    else:
        screen = _perturbed.read_screen(ad, groupby, str(control), layer=layer, min_cells=checks.MIN_CELLS)
        mean, std = screen.control_mean, np.sqrt(screen.control_variance)
        cells = (ad.obs[groupby].astype(object).map(str, na_action="ignore") == control).to_numpy()
        rows = slots.read_matrix(ad[cells], layer)
    levels = _read_levels(level, wanted, ad.var_names, rows)
    clamped = _clamped(wanted, levels, ad.var_names, mean)
    scale = std if found_units == "standardised" else np.ones(ad.n_vars)
    with np.errstate(invalid="ignore"):
        # A gene that does not vary has no coefficients to propagate by, and itself gets its change below.
        inner = np.where(scale > 0, clamped / np.where(scale > 0, scale, 1), np.where(np.isnan(clamped), np.nan, 0.0))

    change, radius, factor = _propagate(network, inner, n_steps, max_radius, resolved)
    if n_steps is None and radius * factor >= 1:
        msg = (
            f"`key`: the effects of {key!r} do not die out: its spectral radius is {radius:.3g}, and a steady state "
            "needs less than 1. Pass `max_radius=0.9` to scale all effects down, or `n_steps=1` for direct ones only."
        )
        raise ValueError(msg)
    # What chance makes larger than the network itself must die out too.
    limit = max(radius * factor, _LARGEST_SHUFFLED) if max_radius is None and n_steps is None else max_radius
    shuffled, other_radius, other_factor = _propagate(
        shuffled_network(network, seed=seed), inner, n_steps, limit, resolved
    )
    held = ~np.isnan(clamped)
    found = {"network": np.where(held, clamped, change * scale), "no_change": np.zeros_like(change)}
    if screen is not None:
        features = _perturbed.features_of(ad, embedding, cells, layer=layer, seed=seed)
        found |= _perturbed.learnt(screen, ad.var_names, wanted, features, seed)
    found["shuffled"] = np.where(held, clamped, shuffled * scale)

    n_edges = _leaving(network, wanted, ad.var_names)
    silent = ["+".join(genes) for genes, n in zip(wanted, n_edges, strict=True) if n == 0]
    if silent:
        checks.warn(
            f"No edge of {key!r} leaves {len(silent)} of {len(wanted)} perturbations ({checks.some(silent)}): no other "
            "gene is predicted to change. Were these genes among the regulators when the network was inferred?"
        )
    entry = record.build(
        "predict_perturbation",
        ad,
        params={**record.arguments(predict_perturbation, values), **_storable(wanted, level)},
        seed=seed,
        slots={"predicted": "X", **{name: f"layers/{name}" for name in found}},
        layer=layer,
        fit={
            "units": found_units,
            "network_n_obs": n_obs_network,
            "spectral_radius": radius,
            "factor": factor,
            "shuffled_radius": other_radius,
            "shuffled_factor": other_factor,
        },
        extra={"levels": pd.DataFrame({"gene": list(levels), "level": list(levels.values())})},
    )
    names = [_perturbed.SEPARATOR.join(genes) for genes in wanted]
    logs.logger.info("predicted %d perturbations", len(names))
    return AnnData(
        np.maximum(mean + found["network"], 0).astype(np.float32),
        obs=pd.DataFrame({"n_genes": [len(genes) for genes in wanted], "n_edges": n_edges}, index=names),
        var=pd.DataFrame({"control_mean": mean, "control_std": std}, index=ad.var_names.copy()),
        layers={name: array.astype(np.float32) for name, array in found.items()},
        uns={"predict_perturbation": entry},
    )


def _units(ad: Any, key: str, network: sparse.csr_matrix, units: Units | None) -> tuple[Units, int | None]:
    """Return the units of a network of coefficients, and how many cells it was inferred from where that is recorded."""
    n_bad = int((~np.isfinite(network.data)).sum())
    if n_bad:
        msg = f"`key`: {key!r} has {n_bad:,} NaN or infinite scores. Infer it again, or leave such pairs out."
        raise ValueError(msg)
    if not network.nnz:
        msg = f"`key`: {key!r} has no edge between two genes: there is nothing to propagate."
        raise ValueError(msg)
    method, part, scale, n_obs = "", "", "", None
    for entry in ad.uns.values():
        if not isinstance(entry, Mapping) or "schema" not in entry:
            continue
        for name, slot in entry.get("slots", {}).items():
            if str(slot) == f"varp/{key}":
                method, part, scale = str(entry["method"]), str(name), str(entry.get("score_scale", ""))
                n_obs = int(entry["inputs"]["n_obs"])
    remedy = "Infer coefficients with `sctrellis.tl.infosem` or `sctrellis.tl.baseline(adata, 'ridge')`."
    if method in _UNSIGNED or scale in ("probability", "log_odds"):
        what = (
            f"scores of {method!r} that have no sign of an effect" if method in _UNSIGNED else "probabilities of edges"
        )
        msg = f"`key`: {key!r} holds {what}: they cannot say whether a gene rises or falls. {remedy}"
        raise ValueError(msg)
    if units is None:
        known, parts = _COEFFICIENTS.get(method, ("standardised", ()))
        if part in parts:
            return known, n_obs
        what = f"is {part!r} of {method!r}, which is" if method else "has no record that says that its scores are"
        msg = (
            f"`key`: {key!r} {what} {'not ' if method else ''}coefficients of expression. {remedy} If they are "
            "coefficients, say in which `units`: 'standardised' or 'expression'."
        )
        raise ValueError(msg)
    if network.data.min() >= 0:
        checks.warn(
            f"No score of {key!r} is negative. If these are probabilities or importances, and not coefficients, what "
            "is predicted has no meaning."
        )
    return units, n_obs


def _read_perturbed(perturbed: Any, var_names: Any) -> list[tuple[str, ...]]:
    """Return the genes of each perturbation, all of them in the data."""
    entries = [perturbed] if isinstance(perturbed, str) else list(perturbed)
    wanted = [
        _perturbed.genes_of(entry, var_names) if isinstance(entry, str) else tuple(str(gene) for gene in entry)
        for entry in entries
    ]
    if not wanted or not all(wanted):
        msg = "Expected `perturbed` to name at least one gene for each perturbation, found none. Such as 'STAT1+IRF1'."
        raise ValueError(msg)
    checks.gene_positions("perturbed", list(dict.fromkeys(gene for genes in wanted for gene in genes)), var_names)
    if any(len(set(genes)) < len(genes) for genes in wanted) or len({frozenset(genes) for genes in wanted}) < len(
        wanted
    ):
        msg = "`perturbed` names a gene twice in a perturbation, or a perturbation twice. Name each once."
        raise ValueError(msg)
    return wanted


def _read_levels(level: Any, wanted: Sequence[Sequence[str]], var_names: Any, rows: Any) -> dict[str, float]:
    """Return the level that each perturbed gene is held at."""
    genes = list(dict.fromkeys(gene for part in wanted for gene in part))
    if isinstance(level, Mapping):
        missing = [gene for gene in genes if gene not in level]
        if missing:
            msg = f"`level` has no entry for {len(missing)} of {len(genes)} perturbed genes ({checks.some(missing)})."
            raise ValueError(msg)
        return {gene: checks.number(f"level[{gene!r}]", level[gene], low=0) for gene in genes}
    if not isinstance(level, str):
        return dict.fromkeys(genes, checks.number("level", level, low=0))
    checks.choice("level", level, ("knockout", "overexpress"))
    if level == "knockout":
        return dict.fromkeys(genes, 0.0)
    high = np.quantile(rows.select(var_names.get_indexer(genes)).in_memory(), _QUANTILE, axis=0)
    return dict(zip(genes, high.tolist(), strict=True))


def _clamped(
    wanted: Sequence[Sequence[str]], levels: Mapping[str, float], var_names: Any, mean: np.ndarray
) -> np.ndarray:
    """Return the change that genes are held at, NaN where they are free."""
    clamped = np.full((len(wanted), len(var_names)), np.nan)
    for i, genes in enumerate(wanted):
        at = var_names.get_indexer(list(genes))
        clamped[i, at] = [levels[gene] for gene in genes] - mean[at]
    return clamped


def _propagate(
    network: sparse.csr_matrix, clamped: np.ndarray, n_steps: int | None, max_radius: float | None, device: Any
) -> tuple[np.ndarray, float, float]:
    """Return changes, the spectral radius, and what effects were scaled by; no changes where they do not die out."""
    from sctrellis.models._propagation import propagate

    rows = np.flatnonzero(np.diff(network.indptr))
    checks.dense_size((len(rows), network.shape[1]), "The network", "Select genes first.", itemsize=8)
    dense = network[rows].toarray().astype(np.float64)
    return propagate(
        dense, rows, clamped, n_steps=n_steps, max_radius=max_radius, n_iterations=_POWER_ITERATIONS, device=device
    )


def _leaving(network: sparse.csr_matrix, wanted: Sequence[Sequence[str]], var_names: Any) -> np.ndarray:
    """Return how many edges leave the genes of each perturbation."""
    degree = np.diff(network.indptr)
    return np.array([degree[var_names.get_indexer(list(genes))].sum() for genes in wanted])


def _storable(wanted: Sequence[Sequence[str]], level: Any) -> dict[str, Any]:
    """Return the arguments that hold sequences and mappings as the record can."""
    names = [_perturbed.SEPARATOR.join(genes) for genes in wanted]
    return {"perturbed": names, "level": "mapping" if isinstance(level, Mapping) else level}
