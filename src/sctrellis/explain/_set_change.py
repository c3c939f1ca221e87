"""What perturbing any part of a set does to the expression that a surrogate predicts, cell by cell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from sctrellis.explain._peaks import Candidates, peak_objective

if TYPE_CHECKING:
    from sctrellis.models import Translator

_CHUNK = 2**23
"""Numbers of pre-activation that are evaluated at once."""


class SetChange:
    """Change of a gene's predicted log expression, in cells of mean size, after some peaks of a set are perturbed.

    Called with a Boolean array (n_sets, n_elements), it returns an array (n_sets, n_cells). The change is exact: only
    the first layer moves. A peak that the surrogate does not let act on the gene changes nothing.

    Parameters
    ----------
    translator
        The fitted surrogate.
    gene
        Position of the gene.
    x : (n_cells, n_peaks)
        Accessibility of the cells, sparse.
    groups : (n_cells,)
        Group of each cell.
    peaks
        Positions of the peaks of the set.
    value
        What a perturbed peak is set to.
    """

    def __init__(
        self,
        translator: "Translator",
        gene: int,
        x: sparse.csr_matrix,
        *,
        groups: np.ndarray,
        peaks: Sequence[int] | np.ndarray,
        value: float = 0.0,
    ) -> None:
        wanted = np.asarray(peaks, dtype=np.int64)
        acting = translator.effects(gene).peaks.cpu().numpy()
        places = np.minimum(np.searchsorted(acting, wanted), len(acting) - 1)
        self._acts = acting[places] == wanted
        self._objective = peak_objective(
            translator,
            x,
            np.array([gene]),
            Candidates(wanted[None, self._acts], places[None, self._acts]),
            groups=groups,
            value=value,
        )
        with torch.inference_mode():
            self._before = self._objective.head(self._objective.pre[:, None])[0]

    @property
    def before(self) -> np.ndarray:
        """Predicted log expression of the unperturbed cells, (n_cells,)."""
        return self._before[0].cpu().numpy()

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        """Return the change of each set, (n_sets, n_cells)."""
        at_once = max(1, _CHUNK // self._objective.pre.numel())
        acting = np.asarray(masks)[:, self._acts]
        parts = torch.as_tensor(acting, device=self._before.device).to(self._objective.pre).split(at_once)
        with torch.inference_mode():
            found = [self._objective.head(self._objective.weighted(part[None]))[0] - self._before for part in parts]
        return torch.cat(found).cpu().numpy()
