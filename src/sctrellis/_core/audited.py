"""Whether a network was audited: the one place that says so, for tables and figures alike."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from sctrellis._core import checks
from sctrellis._core.rows import Rows
from sctrellis._settings import settings

PARTS = ("baseline", "null", "calibration", "information")
DONE = "done"
SKIPPED = "skipped: "
FAILED = "failed: "
UNAUDITED = "UNAUDITED"
_told: set[tuple[str, str]] = set()
"""Networks that a warning was given for: one a session is enough, the table or figure says it each time."""


class NotAuditedWarning(UserWarning):
    """A network is handed out of which nobody has asked what of it the data can carry."""


def fingerprint(network: sparse.csr_matrix) -> str:
    """Return the sha256 of a network's scores and their places, whatever types and order they are stored in."""
    network = sparse.csr_matrix(network, dtype=np.float32)
    if not network.has_sorted_indices:
        network = network.sorted_indices()  # a copy: the user's own stays as it is
    return _hashed(network.indptr.astype(np.int64), network.indices.astype(np.int64), network.data)


def cells_fingerprint(rows: Rows) -> str:
    """Return the sha256 of the mean and the spread of every gene, which are known without another pass."""
    return _hashed(rows.summary.mean, rows.summary.std)


def _hashed(*parts: np.ndarray) -> str:
    mark = hashlib.sha256()
    for part in parts:
        mark.update(np.ascontiguousarray(part).tobytes())
    return mark.hexdigest()


def states(ad: Any, key: str, mark: str | None = None) -> dict[str, str]:
    """Return the state of each part of the audit of ``.varp[key]`` as it is now; empty where there is none.

    ``mark`` is the fingerprint of the network, where it is known already.
    """
    entry = ad.uns.get(key)
    audit = entry.get("audit") if isinstance(entry, Mapping) else None
    if not isinstance(audit, Mapping) or key not in ad.varp:
        return {}
    if str(audit.get("scores_sha256")) != (mark or fingerprint(ad.varp[key])):
        return {}  # of other scores
    return {part: str(audit.get(part, "")) for part in PARTS}


def say(ad: Any, key: str) -> str:
    """Return what tables and figures of a network say of its audit; raise, or warn once, as `settings.audit` wants.

    Returns
    -------
    str
        ``"UNAUDITED"`` and the parts that are neither done nor skipped for a reason; ``"audited"`` where there are
        none; empty for what is no inferred network (known edges, and matrices that no function of
        :mod:`sctrellis.tl` wrote), and where `settings.audit` is ``"off"``.
    """
    entry = ad.uns.get(key)
    if settings.audit == "off" or not isinstance(entry, Mapping) or entry.get("method") == "network":
        return ""
    if str(entry.get("slots", {}).get("network", "")) != f"varp/{key}":
        return ""
    mark = fingerprint(ad.varp[key])
    found = states(ad, key, mark)
    missing = [part for part in PARTS if not found.get(part, "").startswith((DONE, SKIPPED))]
    if not missing:
        return "audited"
    text = f"{UNAUDITED}: {', '.join(missing)} open"
    remedy = (
        f"{key!r} is {text}. Run `sctrellis.tl.audit(adata, {key!r})` to see what of it the data can carry, or set "
        "`sctrellis.settings.audit = 'off'`."
    )
    if settings.audit == "error":
        raise ValueError(remedy)
    if (key, mark) not in _told:
        _told.add((key, mark))
        checks.warn(remedy, NotAuditedWarning)
    return text
