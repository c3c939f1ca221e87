"""Fixtures for all tests."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data; tests that ask for it carry ``@pytest.mark.data``."""
    folder = os.environ.get("SCTRELLIS_DATA")
    if not folder:
        pytest.skip("needs real data: set SCTRELLIS_DATA to their folder")
    if not Path(folder).is_dir():
        pytest.skip(f"needs real data: SCTRELLIS_DATA is {folder!r}, which is no folder")
    return Path(folder)


@pytest.fixture
def adata() -> AnnData:
    """Log-normalised expression of 12 genes in 80 cells: 4 regulators, known edges with folds, a layer, an embedding.

    Each target follows one regulator, so that methods have something to find; ``varp["known"]`` holds these edges.
    """
    rng = np.random.default_rng(0)
    n_obs, n_regulators, n_vars = 80, 4, 12
    genes = [f"TF{i}" for i in range(n_regulators)] + [f"G{i}" for i in range(n_vars - n_regulators)]
    regulator = np.arange(n_vars - n_regulators) % n_regulators
    activity = rng.normal(size=(n_obs, n_regulators))
    targets = 0.8 * activity[:, regulator] + 0.6 * rng.normal(size=(n_obs, len(regulator)))
    counts = rng.poisson(np.exp(1 + 0.7 * np.hstack([activity, targets])))
    adata = AnnData(
        np.log1p(counts).astype(np.float32),
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(n_obs)]),
        var=pd.DataFrame({"is_regulator": np.arange(n_vars) < n_regulators}, index=genes),
    )
    adata.layers["scaled"] = adata.X / np.float32(2)
    edges = (regulator, np.arange(n_regulators, n_vars))
    adata.varp["known"] = sparse.csr_matrix((np.ones(len(regulator), np.float32), edges), shape=(n_vars, n_vars))
    universe = np.zeros((n_vars, n_vars), np.int8)
    universe[:n_regulators, n_regulators:] = rng.integers(1, 4, size=(n_regulators, n_vars - n_regulators))
    adata.varp["known_fold"] = sparse.csr_matrix(universe)
    adata.varm["embedding"] = rng.normal(size=(n_vars, 5)).astype(np.float32)
    return adata
