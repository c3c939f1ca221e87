import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from sctrellis._core import audited, checks, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import REGULATORS, Keys
from sctrellis._core.universe import Universe
from sctrellis.tl._calibrate import calibrate
from sctrellis.tl._evaluate import _saw, evaluate
from sctrellis.tl._information import information
from sctrellis.tl._null import null

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Fold = Literal["train", "validation", "test", "all"]
_MOST_CHANCE = 0.01
_CARRIES = ("I2", "I3")
_LEARNT = "It has learnt from known edges: `sctrellis.tl.bias_audit` tells how much of that is who the genes are."
_ENDS = {"": "value", "_low": "low", "_high": "high"}
_TEXTS = ("best_baseline", "calibration_part", "information")
_NUMBERS = (
    *("auprc", "auprc_ratio", "scored", "best_baseline", "best_auprc", "null_ratio", "null_p", "information"),
    *("calibration_part", "calibration_pairs"),
    *(f"{name}{end}" for name in ("difference", "brier_skill", "nll_skill", "ece") for end in _ENDS),
)


def audit(
    adata: "AnnData | MuData",
    key: str,
    *,
    network: str = "network",
    fold: Fold = "test",
    universe: Universe = "beeline_tf",
    layer: str | None = None,
    n_boot: int = 500,
    n_perm: int = 1000,
    budget: float | None = None,
    seed: int | None = 0,
    mod: str | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Ask of an inferred network what of it the data can carry: beside baselines, a null, calibration, and the cells.

    Runs what applies of :func:`sctrellis.tl.evaluate`, :func:`sctrellis.tl.null`, :func:`sctrellis.tl.calibrate` and
    :func:`sctrellis.tl.information`, each by itself: what fails or cannot be done is told and stops nothing. Until
    that was done, tables and figures of the network say ``UNAUDITED`` (see ``sctrellis.settings.audit``). Expects
    log-normalised expression.

    Parameters
    ----------
    adata
        Cells x genes, with the network in ``.varp``; a MuData with ``mod``.
    key
        The network: a key of ``adata.varp``.
    network
        Key of ``adata.varp`` with known edges. Without them nothing but the cells can be looked at.
    fold
        Pairs to judge on: a fold of :func:`sctrellis.pp.split_edges`, or ``"all"``.
    universe
        Candidate pairs; see :func:`sctrellis.tl.evaluate`. Pairs that the network does not score are ranked last.
    layer
        Layer with the expression; None is ``adata.X``.
    n_boot
        Replicates of the two-way bootstrap of intervals.
    n_perm
        Random networks of the null.
    budget
        Seconds after which no further part is begun; None sets no limit. What was left open is done by the next call.
    seed
        Seed of all parts, in [0, 2**32); None draws one and records it.
    mod
        Modality to use where ``adata`` is a MuData.
    n_jobs
        Workers: None is ``settings.n_jobs``, -1 all cores. The result does not depend on it.
    progress
        Progress bar over the parts; None follows ``settings.progress``.

    Returns
    -------
    DataFrame
        One row for each part, also in ``adata.uns[key]["audit"]["table"]``:

        ``part``
            ``"baseline"``: is it better than the best baseline? ``"null"``: is it more than who is popular?
            ``"calibration"``: do its probabilities say more than a constant? ``"information"``: can these cells carry
            it?
        ``state``
            ``"done"``, ``"skipped: "`` with the reason why it does not apply, or ``"failed: "`` with what went wrong.
        ``passed``
            ``"yes"``, ``"no"``, or empty where nothing can be said; see the notes.
        ``found``
            The result in words.
        ``seconds``
            How long it took.

    ``adata.uns[key]["audit"]`` : dict
        The state of each part by its name; ``table``; ``numbers``, the results by name: ``auprc`` and
        ``auprc_ratio`` (to chance), ``best_baseline`` and the ``difference`` to it, ``null_ratio`` and ``null_p``,
        ``brier_skill``, ``nll_skill`` and ``ece``, each interval as ``_low`` and ``_high``, and ``information``, the
        code of the verdict; NaN or empty where a part was not done; ``records``, where the parts are in ``adata.uns``;
        sha256 of scores, labels, folds and of the mean and spread of each gene, and ``settings``. A new fit with the
        same key takes its place, and scores that were changed by other means no longer match: both are unaudited.
    ``adata.uns[key + "_audit_baseline"]``, and so on with ``"_audit_null"`` and ``"_audit_calibration"`` : dict
        Records of the functions above. Probabilities are not stored: call :func:`sctrellis.tl.calibrate` for them.
    ``adata.uns["information"]`` : dict
        The record of the cells, taken as it is where there is one of as many cells, the same slot, genes and
        regulators already. One of others stays as it is, and this one is ``adata.uns[key + "_audit_information"]``.

    Raises
    ------
    KeyError
        If the network, a layer or a modality is missing.
    ValueError
        If `key` is the known network itself, and on unknown names and numbers out of range.

    Notes
    -----
    A part is passed if

    baseline
        the 95 % interval of the difference in average precision to the best baseline lies above 0. The best one is
        chosen on the same pairs, which favours it.
    null
        at most 1 % of random networks with the same degrees are found as well as the known one.
    calibration
        the log-loss of held-out pairs is better than that of a constant: the interval of its skill lies above 0. The
        calibration error is told beside it, and cannot stand alone: a constant has none.
    information
        the verdict on the cells is ``I2`` or ``I3``: single edges can be told.

    Called again, parts that are done are kept as long as scores, labels, folds, expression and settings are the same;
    what failed, was skipped or was left open is tried. Each part is written as soon as it is done, so that an interrupt
    loses one part at most.

    Cost: with 800 genes, 300 regulators and 30,000 pairs a few seconds for baselines, null and calibration each, and
    minutes for the cells (see :func:`sctrellis.tl.information`).

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(100, 60, 15, density=0.2)
    >>> tr.tl.baseline(adata, "pearson")
    >>> table = tr.tl.audit(adata, "pearson", network="truth", n_boot=50, n_perm=99, budget=0)
    >>> table["state"].tolist()[-1]
    'failed: the budget of 0 s was used up'
    """
    values = locals()
    checks.choice("fold", fold, get_args(Fold))
    checks.choice("universe", universe, universes.UNIVERSES)
    n_boot, n_perm = checks.integer("n_boot", n_boot, minimum=0), checks.integer("n_perm", n_perm)
    budget = None if budget is None else checks.number("budget", budget, low=0)
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    _, ad = slots.target(adata, mod=mod)
    if key == network:
        msg = f"`key`: {key!r} is the known network itself. Name the network to audit."
        raise ValueError(msg)
    scores = slots.read_network(ad, key, argument="key")
    cells = audited.cells_fingerprint(slots.read_matrix(ad, layer))
    labels = slots.read_network(ad, network) if network in ad.varp else None
    folds = None if labels is None else slots.read_folds(ad, network)
    settings = {
        **{name: value for name, value in record.arguments(audit, values).items() if name not in ("budget", "mod")},
        "seed": seed,
    }
    identity = {
        "scores_sha256": audited.fingerprint(scores),
        "labels_sha256": "" if labels is None else audited.fingerprint(labels),
        "folds_sha256": "" if folds is None else audited.fingerprint(folds),
        "cells_sha256": cells,
        "settings": {name: "" if value is None else value for name, value in settings.items() if name != "key"},
    }
    entry = ad.uns.get(key)
    learnt = isinstance(entry, Mapping) and _saw(entry, network)
    shared: dict[str, Any] = {"seed": seed, "n_jobs": workers}
    names = {part: f"{key}_audit_{part}" for part in ("baseline", "null", "calibration")}
    # A record of other cells, layers or regulators is the user's own: it stays, and ours goes beside it.
    free = "information" not in ad.uns or _same_cells(ad, "information", layer)
    names["information"] = "information" if free else f"{key}_audit_information"
    judged: dict[str, Any] = {"network": network, "fold": fold, "universe": universe, "missing": "lowest"}

    def beside_baselines() -> None:
        options: dict[str, Any] = {**judged, **shared, "layer": layer, "n_boot": n_boot, "metrics": ["auprc", "auroc"]}
        evaluate(ad, key, **options, progress=False, key_added=names["baseline"])

    def beside_null() -> None:
        null(ad, key, **judged, **shared, n_perm=n_perm, key_added=names["null"])

    def calibrated() -> None:
        light = _without_cells(ad, [key, network, Keys(network).fold, Keys(network).stage("class")], key)
        fitted: Literal["train", "validation"] = "validation" if learnt else "train"
        calibrate(light, key, network=network, fold=fitted, n_boot=n_boot, seed=seed, key_added=f"{key}_audit")
        slots.write(ad, uns={names["calibration"]: light.uns[names["calibration"]]})

    def carried() -> None:
        if not _same_cells(ad, names["information"], layer):
            information(ad, layer=layer, **shared, key_added=names["information"])

    steps: dict[str, Callable[[], None]] = dict(
        zip(audited.PARTS, (beside_baselines, beside_null, calibrated, carried), strict=True)
    )
    rows = _kept(ad, key, identity, names)
    start = time.monotonic()
    with logs.progress_bar(len(steps), "audit", progress=progress, unit="part") as bar:
        for part, step in steps.items():
            if part not in rows:
                reason = _skip(ad, part, network)
                begun = time.monotonic()
                passed, found = "", ""
                if reason:
                    state = audited.SKIPPED + reason
                elif budget is not None and begun - start >= budget:
                    state = f"{audited.FAILED}the budget of {budget:g} s was used up"
                else:
                    state, told = _tried(step)
                    if state == audited.DONE:
                        passed, found = _words(part, record.read(ad, names[part]), key)
                        found = " ".join([found, *told, *([_LEARNT] if learnt and part == "baseline" else [])])
                rows[part] = {"part": part, "state": state, "passed": passed, "found": found}
                rows[part]["seconds"] = time.monotonic() - begun
                _store(ad, key, rows, identity, names)
            bar.update()
    table = _store(ad, key, rows, identity, names)
    for row in table.itertuples():
        logs.logger.info("%s: %s", row.part, row.found or row.state)
    logs.added([f"uns[{key!r}]['audit']"])
    return table


def _tried(step: Callable[[], None]) -> tuple[str, list[str]]:
    """Return the state of a part that was run, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever a part does, the others are run and the reason is told
            logs.logger.debug("a part of the audit failed", exc_info=True)
            text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
            return f"{audited.FAILED}{text or type(error).__name__}", []
    return audited.DONE, list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))


def _store(
    ad: Any, key: str, rows: Mapping[str, dict[str, Any]], identity: Mapping[str, Any], names: Mapping[str, str]
) -> pd.DataFrame:
    """Write the audit as far as it is, and return its table."""
    done = [rows[part] for part in audited.PARTS if part in rows]
    table = pd.DataFrame(done, columns=["part", "state", "passed", "found", "seconds"])
    entry = ad.uns.get(key)
    if not isinstance(entry, Mapping):  # scores of another package
        entry = record.build("given", ad, params={}, seed=0, slots={"network": f"varp/{key}"})
    states = {row["part"]: row["state"] for row in done}
    numbers: dict[str, Any] = {name: np.nan if name not in _TEXTS else "" for name in _NUMBERS}
    for part in (part for part, state in states.items() if state == audited.DONE):
        numbers |= _READ[part](record.read(ad, names[part]), key)
    kept = {**states, "table": table, "numbers": numbers, "records": dict(names), **identity}
    kept = record.to_storable(kept, "audit")
    slots.write(ad, uns={key: {**entry, "audit": kept}})
    return table


def _kept(ad: Any, key: str, identity: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the rows of parts that an earlier call has done on the same scores and labels with the same settings."""
    entry = ad.uns.get(key)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("audit"), Mapping):
        return {}
    old = record.read(ad, key)["audit"]
    if any(old.get(name) != value for name, value in identity.items()):
        return {}
    there = {part for part in audited.PARTS if names[part] in ad.uns}
    rows = old["table"].to_dict("records")
    return {str(row["part"]): row for row in rows if row["state"] == audited.DONE and row["part"] in there}


def _skip(ad: Any, part: str, network: str) -> str:
    """Return why a part does not apply; empty where it does."""
    if part == "information":
        return "" if REGULATORS in ad.var else "no candidate regulators in `adata.var`"
    if network not in ad.varp:
        return f"no known edges in `adata.varp[{network!r}]`"
    if part == "calibration" and slots.read_folds(ad, network) is None:
        return f"no folds of {network!r}: probabilities need held-out labels, run `sctrellis.pp.split_edges`"
    return ""


def _same_cells(ad: Any, name: str, layer: str | None) -> bool:
    """Whether a record of the cells is of this slot, and of as many cells, these genes and these regulators."""
    entry, seen = ad.uns.get(name), f"{name}_detection"
    if not isinstance(entry, Mapping) or entry.get("method") != "information" or seen not in ad.var:
        return False
    varies = slots.read_matrix(ad, layer).summary.std > 0
    if REGULATORS not in ad.var or (ad.var[seen].notna() != (ad.var[REGULATORS] & varies)).any():
        return False
    inputs = entry["inputs"]
    slot = "X" if layer is None else f"layers/{layer}"
    own = (str(inputs["slot"]), int(inputs["n_obs"]), str(inputs["var_names_sha256"]))
    return own == (slot, ad.n_obs, record.genes_hash(ad.var_names))


def _without_cells(ad: Any, networks: list[str], key: str) -> Any:
    """Return an object with these networks alone: what is made of them leaves the user's own as it is."""
    from anndata import AnnData

    varp = {name: ad.varp[name] for name in networks if name in ad.varp}
    return AnnData(obs=ad.obs[[]], var=ad.var[[]], varp=varp, uns={key: ad.uns[key]} if key in ad.uns else {})


def _read_baseline(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    table, gains = entry["table"].astype({"key": str}), entry["differences"]
    own = table[(table["metric"] == "auprc") & (table["level"] == "micro")].set_index("key")
    found = {"auprc": own.loc[key, "value"], "auprc_ratio": own.loc[key, "value"] / own.loc[key, "base"]}
    rivals = own["value"].drop(index=key)
    if len(rivals):
        best = str(rivals.idxmax())
        gain = gains[(gains["metric"] == "auprc") & (gains["baseline"] == best)].iloc[0]
        found |= {"best_baseline": best, "best_auprc": rivals[best]}
        found |= {f"difference{end}": gain[name] for end, name in _ENDS.items()}
    return {**found, "scored": own.loc[key, "scored"]}


def _read_null(entry: Mapping[str, Any], _: str) -> dict[str, Any]:
    line = entry["table"].set_index("metric").loc["auprc"]
    return {"null_ratio": line["ratio_to_null"], "null_p": line["p"]}


def _read_calibration(entry: Mapping[str, Any], _: str) -> dict[str, Any]:
    table = entry["table"]
    part = "test" if (table["part"] == "test").any() else "fit"
    own = table[(table["part"] == part) & (table["stage"] == "after")].set_index("metric")
    found = {"calibration_part": part, "calibration_pairs": int(own["n_pairs"].iloc[0])}
    for name, metric in (("brier_skill", "brier_skill"), ("nll_skill", "nll_skill"), ("ece", "ece_mass")):
        found |= {f"{name}{end}": own.loc[metric, column] for end, column in _ENDS.items()}
    return found


def _read_information(entry: Mapping[str, Any], _: str) -> dict[str, Any]:
    return {"information": str(entry["verdict"]["code"])}


_READ = dict(zip(audited.PARTS, (_read_baseline, _read_null, _read_calibration, _read_information), strict=True))


def _words(part: str, entry: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Return whether a part that was done is passed, and what was found in words."""
    found = _READ[part](entry, key)
    if part == "baseline":
        return _baseline_words(found)
    if part == "null":
        return ("yes" if found["null_p"] <= _MOST_CHANCE else "no"), str(entry["words"])
    if part == "calibration":
        return _calibration_words(found, str(entry["calibrator"]["method"]))
    return ("yes" if found["information"] in _CARRIES else "no"), f"{found['information']}: {entry['verdict']['words']}"


def _baseline_words(found: Mapping[str, Any]) -> tuple[str, str]:
    text = f"AUPRC {found['auprc']:.4g}, {found['auprc_ratio']:.2f} times the share of known edges"
    if found["scored"] < 1:
        text += f"; {1 - found['scored']:.0%} of the pairs have no score and are ranked last"
    if "best_baseline" not in found:
        return "", f"{text}. There is no other baseline to put beside it."
    gain, low, high = (found[f"difference{end}"] for end in _ENDS)
    text += f". The best baseline, {found['best_baseline']}, has {found['best_auprc']:.4g}: {gain:+.4g}"
    if np.isnan(low):
        return "", f"{text}, without an interval: that takes replicates, and 10 regulators and targets."
    words = "better" if low > 0 else "worse" if high < 0 else "cannot be told apart"
    return ("yes" if low > 0 else "no"), f"{text} ({low:+.4g} to {high:+.4g}), {words}."


def _calibration_words(found: Mapping[str, Any], method: str) -> tuple[str, str]:
    ece, skill = (tuple(found[f"{name}{end}"] for end in _ENDS) for name in ("ece", "nll_skill"))
    better = "better" if skill[0] >= 0 else "worse"
    text = (
        f"Calibrated by {method}: calibration error {ece[0]:.3g} ({ece[1]:.3g} to {ece[2]:.3g}), log-loss "
        f"{abs(skill[0]):.1%} {better} than that of a constant (skill {skill[1]:.1%} to {skill[2]:.1%}), on "
        f"{found['calibration_pairs']:,} {found['calibration_part']} pairs."
    )
    if found["calibration_part"] == "fit":
        return "", f"{text} These are the pairs of the fit: no held-out ones have known edges."
    if np.isnan(skill[1]):
        return "", text
    return ("yes" if skill[1] > 0 else "no"), text
