"""What the structural equation models share between AnnData and arrays."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sctrellis._core import checks, logs, record, slots
from sctrellis._core.keys import Keys
from sctrellis._core.rows import Rows

if TYPE_CHECKING:
    from sctrellis.models import SEMFit


def fingerprint(adata: Any, rows: Rows) -> str:
    """Describe the data of a fit, so that a checkpoint of other data is refused."""
    summary = rows.summary
    values = hashlib.sha256(summary.mean.tobytes() + summary.std.tobytes()).hexdigest()
    return f"{record.genes_hash(adata.var_names)} {adata.n_obs} {values}"


def epoch_bar(
    total: int, description: str, *, progress: bool | None
) -> tuple[Any, Callable[[int, Mapping[str, float]], None]]:
    """Return a progress bar and the callback that moves it and shows the loss."""
    bar = logs.progress_bar(total, description, progress=progress)

    def on_epoch_end(_epoch: int, means: Mapping[str, float]) -> None:
        bar.set_postfix(loss=f"{means['loss']:.4g}", refresh=False)
        bar.update()

    return bar, on_epoch_end


def write_fit(
    adata: Any,
    keys: Keys,
    method: str,
    fit: "SEMFit",
    *,
    rows: Rows,
    regulators: np.ndarray,
    params: Mapping[str, Any],
    seed: int,
    layer: str | None,
    keep_stages: bool = False,
    labels_used: str | None = None,
) -> list[str]:
    """Write a fitted model: network, spread, stages and record. Constant genes get no edges."""
    varying = rows.summary.std > 0
    index, targets = np.flatnonzero(regulators & varying), np.flatnonzero(varying)

    def stored(scores: np.ndarray) -> Any:
        return slots.network_csr(scores[np.ix_(varying[regulators], varying)], index, targets, adata.n_vars)

    varp = {keys.network: stored(fit.network)}
    named = {"network": f"varp/{keys.network}"}
    if fit.std is not None:
        varp[keys.std] = stored(fit.std)
        named["std"] = f"varp/{keys.std}"
    if keep_stages:
        for name, scores in {**fit.stages, **fit.parts}.items():
            varp[keys.stage(name)] = stored(scores)
            named[name] = f"varp/{keys.stage(name)}"
    entry = record.build(
        method,
        adata,
        params=params,
        seed=seed,
        slots=named,
        layer=layer,
        fit=fit.info,
        history=fit.history or None,
        weights=fit.weights,
        extra={**fit.tables, **({"labels_used": labels_used} if labels_used is not None else {})},
    )
    return slots.write(adata, varp=varp, uns={keys.record: entry})


def check_folder(path: str | Path | None) -> None:
    """Refuse, before the fit and not after it, a folder that the fitted model cannot be written to."""
    if path is not None:
        checks.replaceable_folder("save_model", path, ("config.json", "model.safetensors", "var_names.txt"))


def save_fit(path: str | Path | None, method: str, config: Any, fit: "SEMFit", adata: Any) -> None:
    """Write the fitted model to a folder, where one is asked for."""
    if path is None:
        return
    from sctrellis.models import save

    save(path, method, config=asdict(config), weights=fit.weights, var_names=list(adata.var_names))
