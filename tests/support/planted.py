"""A surrogate that knows the truth of a simulated multiome: what the tools say can be compared with what is true."""

import numpy as np
import pandas as pd

from sctrellis._core import record, slots


def plant(mdata, *, key="translate", learned=True, groupby="cell_group"):
    """Write the record of a cis surrogate whose units are the planted gates of each target; return ``mdata``.

    Genes without elements have links and no effects. ``learned`` says what the record claims of all genes.
    """
    rna, atac = mdata["rna"], mdata["atac"]
    links = slots.read_cis(mdata)
    genes = np.flatnonzero(np.diff(links.indptr))
    near = links[genes]
    near.sort_indices()
    groups = [str(name) for name in mdata.obs["cell_group"].cat.categories]
    width = int(mdata.uns["truth"].groupby("target")["gate_id"].nunique().max())
    weights = {
        "genes": genes,
        "indptr": near.indptr.astype(np.int64),
        "peaks": near.indices.astype(np.int64),
        "effect": np.zeros((near.nnz, width), np.float32),
        "bias": np.zeros((len(genes), width), np.float32),
        "output": np.zeros((len(genes), width), np.float32),
        "intercept": np.zeros((len(genes), len(groups)), np.float32),
    }
    for target, rows in mdata.uns["truth"].groupby("target"):
        at = int(np.searchsorted(genes, rna.var_names.get_loc(target)))
        own = weights["peaks"][near.indptr[at] : near.indptr[at + 1]]
        for unit, (_, gate) in enumerate(rows.groupby("gate_id")):
            kind, beta = gate["gate"].iloc[0], gate["beta"].iloc[0]
            members = near.indptr[at] + np.searchsorted(own, atac.var_names.get_indexer(gate["peak"]))
            # OR: beta (1 - relu(1 - sum)); AND: beta relu(sum - (m - 1)); ADD: beta relu(x).
            weights["effect"][members, unit] = -1 if kind == "OR" else 1
            weights["bias"][at, unit] = {"OR": 1, "AND": 1 - len(members), "ADD": 0}[str(kind)]
            weights["output"][at, unit] = -beta if kind == "OR" else beta
            weights["intercept"][at] += beta if kind == "OR" else 0
    names = rna.var_names[genes]
    entry = record.build(
        "translate",
        mdata,
        params={
            "groupby": groupby,
            "counts": "counts",
            "layer": None,
            "split": "cell_split",
            "rna": "rna",
            "atac": "atac",
        },
        seed=0,
        slots={},
        weights=weights,
        extra={
            "surrogate": {
                "kind": "cis",
                "likelihood": "nb",
                "n_genes": rna.n_vars,
                "n_peaks": atac.n_vars,
                "rna_sha256": record.genes_hash(rna.var_names),
                "atac_sha256": record.genes_hash(atac.var_names),
            },
            "genes": pd.DataFrame({"learned": learned}, index=pd.Index(names, name="gene")),
            "by_group": pd.DataFrame(
                {"gene": np.tile(names, len(groups)), "group": np.repeat(groups, len(names)), "learned": learned}
            ),
            "groups": pd.DataFrame({"n_train": 0}, index=pd.Index(groups, name="group")),
        },
    )
    slots.write(mdata, uns={key: entry})
    return mdata
