"""Known edges that depend on popularity and on a number of each pair, for the audits of bias."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse, special

from sctrellis._core import slots

N, P = 110, 48
"""Genes, of which the first are regulators."""


def world(seed=0, *, signal=1.2, base=-1.5):
    """Known edges that depend on who regulates, who is regulated, and on a number of each pair, which is returned."""
    rng = np.random.default_rng(seed)
    pair = rng.normal(size=(P, N))
    logit = base + rng.normal(size=(P, 1)) + 0.7 * rng.normal(size=(1, N)) + signal * pair
    known = np.zeros((N, N), np.float32)
    known[:P] = rng.random((P, N)) < special.expit(logit)
    np.fill_diagonal(known, 0)
    adata = ad.AnnData(np.ones((12, N), np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(N)]))
    adata.obs_names = [f"c{i}" for i in range(12)]
    adata.varp["network"] = sparse.csr_matrix(known)
    return adata, pair


def store(adata, scores, key="model"):
    """Write scores of all pairs of a regulator and a gene."""
    adata.varp[key] = slots.network_csr(scores, np.arange(P), np.arange(N), N)
