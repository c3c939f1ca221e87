"""A simulated perturbation screen whose truth is a linear structural equation model."""

from collections.abc import Sequence

import anndata
import numpy as np
import pandas as pd

from sctrellis import datasets


def linear_screen(
    perturbations: Sequence[Sequence[int]] | None = None,
    *,
    n_control: int = 400,
    n_cells: int = 60,
    n_vars: int = 40,
    n_regulators: int = 12,
    depth: float = 2.0,
    seed: int = 0,
) -> tuple[anndata.AnnData, anndata.AnnData, dict[str, float]]:
    """Return control cells with the true network, the screen with them, and the level perturbed regulators are held at.

    Parameters
    ----------
    perturbations
        Positions among the regulators that are perturbed together; None perturbs each alone.
    n_control, n_cells, n_vars, n_regulators
        Cells that are not perturbed, cells of each perturbation, genes and regulators.
    depth
        How far below its mean a perturbed gene is held.
    seed
        Seed of network and cells.
    """
    control = datasets.simulate_grn(n_control, n_vars, n_regulators, density=0.15, weights=(0.5, 1.0), seed=seed)
    control.X += np.float32(8)  # room below, so that no perturbed cell falls under 0
    effects = control.varp["truth_effect"].toarray().astype(float)
    regulators = np.flatnonzero(control.var["is_regulator"])
    names = control.var_names
    level = {names[i]: float(control.X[:, i].mean() - depth) for i in regulators}
    offset = control.var["offset"].to_numpy() + 8
    rng = np.random.default_rng(seed + 1)
    blocks, labels = [control.X], ["control"] * n_control
    for part in [[i] for i in range(n_regulators)] if perturbations is None else perturbations:
        genes = regulators[list(part)]
        cut = effects.copy()
        cut[:, genes] = 0
        noise = rng.normal(size=(n_cells, n_vars))
        noise[:, genes] = [level[names[i]] - offset[i] for i in genes]
        blocks.append(noise @ np.linalg.inv(np.eye(n_vars) - cut) + offset)
        labels += ["+".join(names[genes])] * n_cells
    screen = anndata.AnnData(
        np.vstack(blocks).astype(np.float32),
        obs=pd.DataFrame({"target": labels}, index=[f"cell_{i}" for i in range(len(labels))]),
        var=control.var.copy(),
    )
    return control, screen, level
