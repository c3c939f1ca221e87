"""What a fitted RegNet leaves in an AnnData, and the model read back from there."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sctrellis._core import checks, record, slots
from sctrellis._core.keys import Keys

if TYPE_CHECKING:
    from anndata import AnnData

    from sctrellis.models import RegNet, RegNetConfig, RegNetFit

_USED_DIMENSIONS = 4.0


def read_regnet(
    adata: "AnnData",
    key: str,
    *,
    methods: Sequence[str] = ("regnet", "regnet_finetune"),
    argument: str = "key",
    owner: str = "adata",
) -> tuple[dict[str, Any], "RegNet"]:
    """Return the record of a fitted RegNet and its model; raises where it is of another method or of other genes."""
    from sctrellis.models import load_regnet

    checks.has_slot(argument, key, adata.uns.keys(), f"{owner}.uns", "Run `sctrellis.tl.regnet` first.")
    entry = record.read(adata, key)
    if entry["method"] not in methods:
        msg = (
            f"`{argument}`: `{owner}.uns[{key!r}]` is a record of {entry['method']!r}, and one of "
            f"{' or '.join(map(repr, methods))} is needed. Run `sctrellis.tl.regnet` first, or name its key."
        )
        raise ValueError(msg)
    if entry["inputs"]["var_names_sha256"] != record.genes_hash(adata.var_names):
        msg = (
            f"`{argument}`: the model in `{owner}.uns[{key!r}]` was fitted on {entry['inputs']['n_vars']:,} genes, and "
            f"the {adata.n_vars:,} of `{owner}` are others or in another order. Its weights belong to those genes: use "
            "the object that it was fitted on, or fit again."
        )
        raise ValueError(msg)
    return entry, load_regnet(entry["weights"], entry["config"])


def fold_hash(folds: sparse.csr_matrix) -> str:
    """Return the sha256 of folds, as :func:`sctrellis._core.slots.read_folds` returns them."""
    return _sha(folds.indptr.astype(np.int64), folds.indices.astype(np.int64), folds.data)


def write_regnet(
    ad: "AnnData",
    keys: Keys,
    method: str,
    result: "RegNetFit",
    config: "RegNetConfig",
    scored: np.ndarray,
    columns: np.ndarray,
    *,
    params: dict[str, Any],
    seed: int,
    layer: str | None,
    fit: dict[str, Any],
    hashes: dict[str, str],
    extra: dict[str, Any],
) -> list[str]:
    """Write a fit into its slots, warn where its latent vectors are flat, and return the names of the slots."""
    named = {"network": keys.network, "prob": keys.prob, "std": keys.std}
    scores = dict(zip(named, (result.logits, result.probability, result.std), strict=True))
    weights = result.model.arrays()
    entry = record.build(
        method,
        ad,
        params=params,
        seed=seed,
        slots={name: f"varp/{key}" for name, key in named.items()}
        | {"latent": f"varm/{keys.latent}", "gate": f"var/{keys.gate}"},
        layer=layer,
        fit=fit | result.fit,
        history=result.history,
        weights=weights,
        extra=extra
        | {
            "score_scale": "log_odds",
            "config": dataclasses.asdict(config),
            "hashes": hashes | {"graph": _sha(weights["regulator"], weights["target"])},
        },
    )
    used = result.fit["participation_ratio"]
    if used < _USED_DIMENSIONS:
        checks.warn(
            f"The latent means of the genes use {used:.2f} of {config.latent} dimensions (participation ratio, below "
            f"{_USED_DIMENSIONS:g}): they lie along few directions, as they do when they hold little more than how "
            "many edges a gene has. Read distances between them, and shrinkage through all layers, with care; a "
            "smaller `beta` or a larger `reconstruction` spreads them."
        )
    return slots.write(
        ad,
        varp={
            key: slots.network_csr(scores[name][:, columns], scored, columns, ad.n_vars) for name, key in named.items()
        },
        varm={keys.latent: result.mu},
        var={keys.gate: result.gate},
        uns={keys.record: entry},
    )


def _sha(*parts: np.ndarray) -> str:
    return hashlib.sha256(b"\0".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
