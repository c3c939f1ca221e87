"""What a search finds where there is nothing to find: one draw of a null at a time."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sctrellis._core import draws, slots
from sctrellis._core import sets as _sets
from sctrellis.tl import _surrogate, _translate_report
from sctrellis.tl._held_out import held_out

if TYPE_CHECKING:
    from mudata import MuData

TASK = ["group", "target"]
STRATA = 3
"""Classes of openness that matched sets keep to: a gene has some tens of candidates."""


@dataclass(frozen=True)
class Search:
    """A search to be repeated: data, its record with the tasks concerned, and the record of its surrogate."""

    mdata: "MuData"
    found: _sets.ElementSets
    surrogate: Mapping[str, Any]
    device: str
    seed: int

    @property
    def sign(self) -> float:
        """1 where sets are to raise expression, -1 where they are to lower it."""
        return 1.0 if self.found.record["params"]["direction"] == "up" else -1.0

    @property
    def tasks(self) -> pd.DataFrame:
        """Group, target and effect in the direction of the search."""
        tasks = self.found.tasks
        return tasks[TASK].assign(effect=self.sign * tasks["log_delta"].to_numpy())

    @property
    def mods(self) -> dict[str, str]:
        """Names of the modalities, as arguments."""
        return {name: str(self.surrogate["params"][name]) for name in ("rna", "atac")}


def _again(function: Callable[..., Any], mdata: "MuData", params: Mapping[str, Any], **changes: Any) -> None:
    """Call a tool as its record says, without its warnings: they were given for the data themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        function(mdata, **{**params, "progress": False, **changes})


def _search_again(search: Search, mdata: "MuData", **changes: Any) -> pd.DataFrame:
    """Search the tasks again and return their effects."""
    from sctrellis.tl._attribution import attribution
    from sctrellis.tl._grids import grids

    entry, parts = search.found.record, []
    known: dict[str, Callable[..., Any]] = {"grids": grids, "attribution": attribution}
    for group, tasks in search.tasks.groupby("group", sort=False):
        options = {"targets": list(tasks["target"]), "groups": [group], "n_boot": 0, "device": search.device, **changes}
        _again(known[str(entry["method"])], mdata, entry["params"], key_added="again", **options)
        parts.append(_sets.read(mdata, "again").tasks)
    table = pd.concat(parts, ignore_index=True)
    return table[TASK].assign(effect=search.sign * table["log_delta"])


def permuted_pairing(search: Search, draw: int, batch: str | None) -> pd.DataFrame:
    """Return the effects after expression was permuted, the surrogate fitted again and the search run again."""
    from sctrellis.tl._translate import translate

    params = search.surrogate["params"]
    _, paired, _ = _surrogate.read_surrogate(search.mdata, search.found.record["params"]["key"])
    if batch is not None:
        strata = paired.groups, slots.read_obs(search.mdata, batch, argument="batch").astype("category").cat.codes
        paired = replace(paired, groups=np.unique(np.stack(strata), axis=1, return_inverse=True)[1])
    # Partners are drawn one permutation after the other: the first are the same, however many there are.
    partners = _translate_report.permuted_partners(paired, draw + 1, search.seed)[draw]
    mdata = _with_partners(search, partners)
    targets = list(dict.fromkeys(search.tasks["target"]))
    changes = {"targets": targets, "n_null": 0, "layer_added": None, "device": search.device}
    _again(translate, mdata, params, key_added=search.found.record["params"]["key"], **changes)
    return _search_again(search, mdata)


def _with_partners(search: Search, partners: np.ndarray) -> "MuData":
    """Return the data with the expression of another cell in each cell; accessibility is shared, not copied."""
    from anndata import AnnData
    from mudata import MuData, set_options

    params, mods = search.surrogate["params"], search.mods
    rna, atac = slots.multiome(search.mdata, **mods)
    layers = {name: rna.layers[name][partners] for name in (params["counts"], params["layer"]) if name is not None}
    of_cells: dict[str, Any] = {params["split"]: search.mdata.obs[params["split"]]}
    for groupby in (params["groupby"], search.found.record["params"]["groupby"]):
        if groupby is not None:
            of_cells[groupby] = slots.read_obs(search.mdata, groupby)
    with set_options(pull_on_update=False):
        made = MuData(
            {
                mods["rna"]: AnnData(rna.X[partners], obs=rna.obs[[]], var=rna.var, layers=layers),
                mods["atac"]: AnnData(atac.X, obs=atac.obs[[]], var=atac.var),
            }
        )
    links = {params["links"], search.found.record["params"]["links"]} & set(search.mdata.varp)
    near = {key: slots.cis_network(made, slots.read_cis(search.mdata, key, **mods), **mods) for key in links}
    slots.write(made, obs=of_cells, varp=near)
    return made


def pseudo_window(search: Search, draw: int, shift: int) -> pd.DataFrame:
    """Return the effects of the search in windows elsewhere on the chromosome; NaN where there is no room for one."""
    mdata, effects = search.mdata.copy(), []
    for group, target in search.tasks[TASK].itertuples(index=False):
        window = _window(search, str(group), str(target), draw, shift)
        if window is None:
            effects.append(np.nan)
            continue
        alone = replace(search, found=search.found.only(target, group))
        effects.append(float(_search_again(alone, mdata, candidates=window)["effect"].iloc[0]))
    return search.tasks[TASK].assign(effect=effects)


def _window(search: Search, group: str, target: str, draw: int, shift: int) -> np.ndarray | None:
    """Return which peaks lie in a window as wide as the gene's own, at least ``shift`` away on its chromosome."""
    rna, atac = slots.multiome(search.mdata, **search.mods)
    params = search.found.record["params"]
    gene = rna.var_names.get_loc(target)
    near = slots.read_cis(search.mdata, params["links"], **search.mods)
    reach = np.abs(near.data[near.indptr[gene] : near.indptr[gene + 1]]).max(initial=0)
    of_gene = slots.coordinates(rna, "mdata[rna]", ("chrom", "tss")).iloc[gene]
    peaks = slots.coordinates(atac, "mdata[atac]")
    here = np.flatnonzero((peaks["chrom"] == of_gene["chrom"]).to_numpy())
    middle = ((peaks["start"] + peaks["end"]) // 2).to_numpy()[here]
    order = np.argsort(middle, kind="stable")
    here, middle = here[order], middle[order]
    first, last = np.searchsorted(middle, middle - reach, "left"), np.searchsorted(middle, middle + reach, "right")
    often = slots.openness(atac)[here] >= params["min_open"]
    n_often = np.concatenate([[0], np.cumsum(often)])
    # Twice as many as are needed: some are too rarely open in the group.
    room = (np.abs(middle - of_gene["tss"]) >= shift) & (n_often[last] - n_often[first] >= 2 * params["n_peaks"])
    if not room.any():
        return None
    rng = np.random.default_rng([search.seed, draw, *map(int, draws.hashes([group, target]))])
    centre = rng.choice(np.flatnonzero(room))
    return np.isin(np.arange(atac.n_vars), here[first[centre] : last[centre]])


def matched_sets(search: Search, n_sets: int) -> pd.DataFrame:
    """Return the effects of random sets of every task's candidates, as often open as the set that was found."""
    from sctrellis.explain import SetChange

    params = search.found.record["params"]
    translator, paired, entry = _surrogate.read_surrogate(search.mdata, params["key"])
    translator = translator.to(search.device)
    rna, atac = slots.multiome(search.mdata, **search.mods)
    limited = isinstance(params["candidates"], str) and params["candidates"] == "cis"
    near = slots.read_cis(search.mdata, params["links"], **search.mods) if limited else None
    tables = []
    for (group, target), rows in search.found.sets.groupby(TASK, sort=False):
        gene = rna.var_names.get_loc(target)
        cells = held_out(search.mdata, paired, search.found.record, entry, str(group))
        x = paired.accessibility[cells]
        chosen = slots.positions(atac, rows["peak"], "the sets")
        candidates = _candidates(translator.effects(gene).peaks.cpu().numpy(), near, gene, x, chosen)
        rng = np.random.default_rng([search.seed, *map(int, draws.hashes([str(group), str(target)]))])
        masks = _matched_masks(x[:, candidates], np.isin(candidates, chosen), n_sets, rng)
        change = SetChange(translator, gene, x, groups=paired.groups[cells], peaks=candidates, value=params["value"])
        effect = search.sign * change(masks).mean(axis=1)
        part = pd.DataFrame({"group": group, "target": target, "draw": np.arange(n_sets), "effect": effect})
        tables.append(part)
    return pd.concat(tables, ignore_index=True)


def _candidates(
    acting: np.ndarray, near: sparse.csr_matrix | None, gene: int, x: sparse.csr_matrix, chosen: np.ndarray
) -> np.ndarray:
    """Return the peaks that could have been chosen: they act on the gene, are linked where that was asked, and open."""
    linked = acting if near is None else near.indices[near.indptr[gene] : near.indptr[gene + 1]]
    possible = np.intersect1d(acting, linked)
    is_open = np.asarray((x[:, possible] != 0).sum(axis=0)).ravel() > 0
    return np.union1d(possible[is_open], chosen)


def _matched_masks(x: sparse.csr_matrix, chosen: np.ndarray, n_sets: int, rng: np.random.Generator) -> np.ndarray:
    """Return random sets of the candidates, (n_sets, n_candidates), with as many of each class of openness."""
    openness = np.asarray((x != 0).mean(axis=0)).ravel()
    rank = np.argsort(np.argsort(openness, kind="stable"), kind="stable")
    stratum = rank * STRATA // len(rank)
    masks = np.zeros((n_sets, len(chosen)), dtype=bool)
    for one in np.unique(stratum[chosen]):
        members = np.flatnonzero(stratum == one)
        order = rng.random((n_sets, len(members))).argsort(axis=1)[:, : int(chosen[members].sum())]
        masks[np.arange(n_sets)[:, None], members[order]] = True
    return masks
