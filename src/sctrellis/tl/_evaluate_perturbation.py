from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis.metrics import perturbation_metrics, perturbation_skill
from sctrellis.metrics._perturbation_metrics import METRICS
from sctrellis.metrics._perturbation_skill import few, percentiles, resampled
from sctrellis.tl import _perturbed

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_SHUFFLED = "shuffled"
_BASELINES = ("no_change", "train_mean", "additive", "linear", "knn", _SHUFFLED)
_ERRORS = ("mae", "mse")
_SPREAD = 0.2
"""Relative difference of the best and the worst method below which a metric ranks nothing."""


def evaluate_perturbation(
    adata: "AnnData | MuData",
    predicted: "AnnData | pd.DataFrame | Mapping[str, AnnData | pd.DataFrame]",
    *,
    groupby: str,
    control: str,
    embedding: str | None = None,
    layer: str | None = None,
    k: int = 20,
    min_cells: int = 20,
    min_change: float | None = None,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int | None = 0,
    mod: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    r"""Compare predicted with observed perturbations, beside baselines that leave out what they predict.

    Expects log-normalised expression. A change is the mean over the cells of a perturbation minus that over control
    cells, the perturbed genes themselves left out. Whole perturbations are held out, never cells: each baseline
    predicts a perturbation from the others.

    Parameters
    ----------
    adata
        Observed cells; a MuData with ``mod``.
    predicted
        What :func:`sctrellis.tl.predict_perturbation` returned; or a DataFrame of predicted *changes* by any method,
        perturbations x genes by name; or several of these by name.
    groupby
        Column of ``adata.obs`` with the perturbation of each cell: a gene, or several as in ``"STAT1+IRF1"``. Cells
        with a missing value are left out.
    control
        Label of the control cells in `groupby`.
    embedding
        Key of ``adata.varm`` with the genes' vectors for the baselines ``"linear"`` and ``"knn"``. None takes the
        genes' loadings on the first ten principal components of the control cells.
    layer
        Layer with the expression; None is ``adata.X``.
    k
        Number of genes in the overlap of those that change most.
    min_cells
        Perturbations with fewer cells are left out.
    min_change
        Observed changes up to this size have no direction. None is two standard errors of each change.
    n_boot
        Replicates of the bootstrap over perturbations; 0 leaves limits NaN.
    level
        Coverage of the intervals, in (0, 1).
    seed
        Seed of bootstrap and baselines, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Key of ``adata.uns`` for the tables and their record; None is ``"evaluate_perturbation"``.

    Returns
    -------
    DataFrame
        One row per method and metric, also stored in ``adata.uns[key_added]["table"]``. Columns:

        ``method``, ``kind``
            The models, under their names (the network's key for what ``tl.predict_perturbation`` returned), and the
            baselines ``"no_change"``, ``"train_mean"``, ``"additive"``, ``"linear"``, ``"knn"`` and ``"shuffled"``.
        ``metric``
            Those of :func:`sctrellis.metrics.perturbation_metrics`, averaged over perturbations, and ``"skill"``, see
            :func:`sctrellis.metrics.perturbation_skill`: what is gained in squared error over the best baseline.
        ``value``, ``low``, ``high``
            With intervals over perturbations.
        ``n_perturbations``
            Perturbations with a value.
        ``can_rank``
            Whether the metric tells anything apart on these data: the best method is better than the negative control
            (``"shuffled"``, else ``"no_change"``), and best and worst differ by a fifth or more.
        ``note``
            What is wrong with the interval.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``; ``perturbations``, one row per perturbation and method with every metric, the
        number of cells and ``noise``, the squared error that the right prediction would have; ``left_out`` with
        reasons; ``verdict``, by model, of ``code`` (``"better"``, ``"not_told"``, ``"worse"`` or ``"undecided"``) and
        ``words``; and ``fit``, with the best baseline and the ``ceiling``.

    Raises
    ------
    KeyError
        If a column, layer, embedding or modality is missing.
    TypeError
        If `predicted` is neither an AnnData nor a DataFrame, nor several of them.
    ValueError
        If no cell is control, fewer than three perturbations have enough cells, none of them was predicted, genes do
        not match, or a prediction is not finite.

    Notes
    -----
    Observed changes are noisy: even the right prediction has the squared error of the two means, on average
    :math:`s_p^2 / n_p + s_0^2 / n_0`. The ``ceiling`` is the skill that this leaves to be had. The error of the control
    mean is part of every observed change; baselines that learn from perturbations share it, and gain a little by that.

    A network has no say on perturbed genes that are not measured; they still teach the baselines.

    References
    ----------
    :cite:p:`ahlmanneltze2025` and :cite:p:`kernfeld2023pereggrn`: baselines that deep models did not beat.
    Admissible metrics as in geneRNIB, bioRxiv 2025.

    Examples
    --------
    >>> import numpy as np, pandas as pd, sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(240, 30, 6)
    >>> adata.obs["target"] = np.repeat(["control", *adata.var_names[:5]], 40)
    >>> guess = pd.DataFrame(0.1, index=adata.var_names[:5], columns=adata.var_names)
    >>> table = tr.tl.evaluate_perturbation(adata, guess, groupby="target", control="control", k=5)
    >>> table.query("metric == 'skill'")["method"].tolist()
    ['predicted', 'no_change', 'train_mean', 'linear', 'knn']
    """
    values = locals()
    k, min_cells = checks.integer("k", k), checks.integer("min_cells", min_cells, minimum=2)
    n_boot, seed = checks.integer("n_boot", n_boot, minimum=0), checks.seed(seed)
    level = checks.number("level", level, low=0, high=1, open_low=True, open_high=True)
    if min_change is not None:
        min_change = checks.number("min_change", min_change, low=0)
    keys = Keys.for_method("evaluate_perturbation", key_added)
    _, ad = slots.target(adata, mod=mod)
    models = _read_predicted(predicted)
    screen = _perturbed.read_screen(ad, groupby, control, layer=layer, min_cells=min_cells)
    if len(screen.labels) < 3:
        msg = (
            f"`groupby`: {len(screen.labels)} perturbations of {groupby!r} have at least {min_cells} cells, and "
            "baselines that leave one out need 3. Lower `min_cells`."
        )
        raise ValueError(msg)
    _guard(ad, models)
    judged, left_out = _judged(screen, models)
    genes = _genes(ad.var_names, models)
    wanted = [screen.perturbations[i] for i in judged]

    cells = (ad.obs[groupby].astype(object).map(str, na_action="ignore") == control).to_numpy()
    features = _perturbed.features_of(ad, embedding, cells, layer=layer, seed=seed)
    methods = {name: _aligned(name, table, wanted, genes) for name, table in models.items()}
    learnt = _perturbed.learnt(screen, ad.var_names, wanted, features, seed)
    at = ad.var_names.get_indexer(genes)
    methods |= {name: array[:, at] for name, array in learnt.items()}
    # Models first, then what they have to beat.
    baselines = [name for name in _BASELINES if name in methods]
    baselines += [name for name in methods if name.startswith(f"{_SHUFFLED} ")]
    methods = {name: methods[name] for name in [*(n for n in methods if n not in baselines), *baselines]}

    observed, noise = screen.changes[judged][:, at], screen.noise[judged][:, at]
    excluded = _perturbed.own_genes(wanted, genes)
    smallest = 2 * np.sqrt(noise) if min_change is None else min_change
    options: dict[str, Any] = {"excluded": excluded, "k": k, "min_change": smallest}
    scores = {name: perturbation_metrics(array, observed, **options) for name, array in methods.items()}
    floor = np.nanmean(np.where(excluded, np.nan, noise), axis=1)

    skill = perturbation_skill(
        {name: score["mse"] for name, score in scores.items()},
        baselines=baselines,
        n_boot=n_boot,
        level=level,
        seed=seed,
    )
    table = _table(scores, skill, baselines, n_boot=n_boot, level=level, seed=seed)
    best = str(skill["best_baseline"].iloc[0])
    ceiling = float(1 - floor.mean() / scores[best]["mse"].mean())
    verdict = {name: _verdict(row, best) for name, row in skill.set_index("method").iterrows() if name not in baselines}
    per_perturbation = pd.concat(
        [
            score.assign(
                method=name,
                perturbation=[screen.labels[i] for i in judged],
                n_cells=screen.n_cells[judged],
                noise=floor,
            )
            for name, score in scores.items()
        ],
        ignore_index=True,
    )
    per_perturbation = per_perturbation[["perturbation", "method", *METRICS, "noise", "n_cells"]]
    entry = record.build(
        "evaluate_perturbation",
        ad,
        params={**record.arguments(evaluate_perturbation, values), "predicted": list(models)},
        seed=seed,
        slots={"table": f"uns/{keys.record}/table"},
        layer=layer,
        fit={
            "best_baseline": best,
            "ceiling": ceiling,
            "n_perturbations": len(judged),
            "n_train": len(screen.labels),
            "n_genes": len(genes),
            "n_control": screen.n_control,
        },
        extra={"table": table, "perturbations": per_perturbation, "left_out": left_out, "verdict": verdict},
    )
    for name, found in verdict.items():
        logs.logger.info("%s: %s", name, found["words"])
    logs.added(slots.write(ad, uns={keys.record: entry}))
    return table


def _read_predicted(predicted: Any) -> dict[str, pd.DataFrame]:
    """Return predicted changes by method; ``attrs`` hold the number of cells that the network was inferred from."""
    if not isinstance(predicted, Mapping):
        name = "predicted"
        if hasattr(predicted, "layers"):
            entry = predicted.uns.get("predict_perturbation", {})
            name = str(entry.get("params", {}).get("key", name))
        predicted = {name: predicted}
    several = sum(hasattr(value, "layers") for value in predicted.values()) > 1
    models: dict[str, pd.DataFrame] = {}
    for name, value in predicted.items():
        checks.slot_name("predicted", name)
        if name in _BASELINES:
            msg = f"`predicted`: {name!r} is the name of a baseline. Name the model otherwise."
            raise ValueError(msg)
        if isinstance(value, pd.DataFrame):
            models[name] = value
        elif hasattr(value, "layers"):
            checks.has_slot(
                "predicted", "network", value.layers, "predicted.layers", "Make it with `tl.predict_perturbation`."
            )
            entry = value.uns.get("predict_perturbation", {})
            for layer, as_name in (
                ("network", name),
                (_SHUFFLED, f"{_SHUFFLED} {name}" if several else _SHUFFLED),
            ):
                if layer in value.layers:
                    models[as_name] = value.to_df(layer)
                    models[as_name].attrs["n_obs"] = entry.get("fit", {}).get("network_n_obs")
        else:
            msg = (
                "Expected `predicted` to be an AnnData of `sctrellis.tl.predict_perturbation` or a DataFrame of "
                f"changes (or several by name), found {type(value).__name__}."
            )
            raise TypeError(msg)
    if not models:
        msg = "`predicted` is empty: there is nothing to judge."
        raise ValueError(msg)
    return models


def _guard(ad: Any, models: Mapping[str, pd.DataFrame]) -> None:
    """Warn where a network was inferred from the very cells that it is judged on."""
    saw = [name for name, table in models.items() if table.attrs.get("n_obs") == ad.n_obs and _SHUFFLED not in name]
    if saw:
        checks.warn(
            f"{checks.some(saw)} was inferred from {ad.n_obs:,} cells, as many as are judged here: if these are the "
            "same, it has seen the perturbed cells that it predicts. Infer it from control cells alone."
        )


def _judged(screen: _perturbed.Screen, models: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return positions of the perturbations that every model predicts, and the others with the reason."""
    asked = [{frozenset(_parts(name, table)) for name in table.index} for table in models.values()]
    in_all = np.array([all(frozenset(genes) in names for names in asked) for genes in screen.perturbations])
    missed = [label for label, kept in zip(screen.labels, in_all, strict=True) if not kept]
    if not in_all.any():
        first = next(iter(models.values()))
        msg = (
            f"`predicted`: none of the {len(screen.labels)} observed perturbations ({checks.some(screen.labels)}) is "
            f"among those predicted ({checks.some(first.index)}). Do both use the same names?"
        )
        raise ValueError(msg)
    more = pd.DataFrame({"perturbation": missed, "reason": ["not predicted"] * len(missed)}, dtype=object)
    return np.flatnonzero(in_all), pd.concat([screen.left_out, more], ignore_index=True)


def _parts(label: str, table: pd.DataFrame) -> tuple[str, ...]:
    return _perturbed.genes_of(str(label), table.columns)


def _genes(var_names: Any, models: Mapping[str, pd.DataFrame]) -> Any:
    """Return the genes that all predictions have, in the order of the data."""
    shared = var_names[np.all([var_names.isin(table.columns) for table in models.values()], axis=0)]
    if not len(shared):
        raise checks.no_match("predicted", list(next(iter(models.values())).columns), var_names)
    if len(shared) < len(var_names):
        checks.warn(f"`predicted` has {len(shared)} of the {len(var_names)} genes of `adata`: only these are compared.")
    return shared


def _aligned(name: str, table: pd.DataFrame, wanted: list[tuple[str, ...]], genes: pd.Index) -> np.ndarray:
    """Return predicted changes in the order of the perturbations and genes."""
    position = {frozenset(_parts(label, table)): i for i, label in enumerate(table.index)}
    if len(position) < len(table) or not table.columns.is_unique:
        msg = f"`predicted`: {name!r} has a perturbation or a gene twice. Keep each once."
        raise ValueError(msg)
    rows = [position[frozenset(part)] for part in wanted]
    array = table[genes].to_numpy(dtype=np.float64)[rows]
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        msg = f"`predicted`: {name!r} has {n_bad:,} NaN or infinite changes. Leave such perturbations or genes out."
        raise ValueError(msg)
    return array


def _table(
    scores: Mapping[str, pd.DataFrame],
    skill: pd.DataFrame,
    baselines: list[str],
    *,
    n_boot: int,
    level: float,
    seed: int,
) -> pd.DataFrame:
    """Return one row per method and metric."""
    n = len(next(iter(scores.values())))
    weights, note = resampled(n, n_boot, seed), few(n, n_boot)
    lines: list[dict[str, Any]] = []
    for name, score in scores.items():
        values = score[list(METRICS)].to_numpy()
        finite = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            replicates = (weights @ np.where(finite, values, 0)) / (weights @ finite)
        counts = finite.sum(axis=0)
        mean = np.divide(
            np.where(finite, values, 0).sum(axis=0), counts, out=np.full(len(METRICS), np.nan), where=counts > 0
        )
        lost = np.isnan(replicates).any(axis=0)
        low, high = percentiles(np.where(lost, 0, replicates), level)
        for i, metric in enumerate(METRICS):
            limits = (np.nan, np.nan) if lost[i] else (low[i], high[i])
            lines.append(
                {
                    "method": name,
                    "kind": "baseline" if name in baselines else "model",
                    "metric": metric,
                    "value": mean[i],
                    "low": limits[0],
                    "high": limits[1],
                    "n_perturbations": int(counts[i]),
                    "note": note if counts[i] else "constant predictions",
                }
            )
        row = skill.set_index("method").loc[name]
        lines.append(
            {
                "method": name,
                "kind": "baseline" if name in baselines else "model",
                "metric": "skill",
                "value": row["value"],
                "low": row["low"],
                "high": row["high"],
                "n_perturbations": n,
                "note": row["note"],
            }
        )
    table = pd.DataFrame(lines)
    ranks = {str(metric): _can_rank(str(metric), part) for metric, part in table.groupby("metric", sort=False)}
    ranks["skill"] = ranks["mse"]
    table["can_rank"] = table["metric"].map(ranks).astype(bool)
    return table[[*(c for c in table if c not in ("can_rank", "note")), "can_rank", "note"]]


def _can_rank(metric: str, part: pd.DataFrame) -> bool:
    """Return whether a metric tells the methods apart."""
    value = part.set_index("method")["value"].dropna()
    if len(value) < 2:
        return False
    value = -value if metric in _ERRORS else value
    spread = value.max() - value.min() >= _SPREAD * value.abs().max()
    control = next((name for name in (_SHUFFLED, "no_change") if name in value), None)
    return bool(spread and (control is None or value.max() > value[control]))


def _verdict(row: pd.Series, best: str) -> dict[str, str]:
    """Return what the interval of a model's skill says."""
    limits = f"skill {row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
    if np.isnan(row["low"]):
        return {"code": "undecided", "words": f"Undecided, skill {row['value']:.2f} over {best}: {row['note']}."}
    code, words = "not_told", "Not told from"
    if row["low"] > 0:
        code, words = "better", "Better than"
    elif row["high"] < 0:
        code, words = "worse", "Worse than"
    rough = f"; {row['note']}" if row["note"] else ""
    return {"code": code, "words": f"{words} the best baseline, {best}: {limits}{rough}."}
