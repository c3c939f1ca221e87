from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from sctrellis._core import checks, logs, record, slots
from sctrellis._core import universe as universes
from sctrellis._core.keys import Keys
from sctrellis.tl import _benchmark_runs as runs
from sctrellis.tl._evaluate import Metric

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

_SCHEMES = ("edge", "target", "regulator", "both", "infosem")


def benchmark(
    adata: "AnnData | MuData",
    methods: "Sequence[str] | Mapping[str, str | tuple[str | Callable[..., Any], Mapping[str, Any]]]",
    *,
    network: str = "network",
    scheme: str | Sequence[str] = ("edge", "infosem"),
    seeds: int | Sequence[int] = 5,
    metrics: Sequence[Metric] = ("auroc", "auprc", "auprc_ratio", "early_precision_ratio", "hit_rate"),
    universe: universes.Universe = "beeline_tf",
    test_frac: float = 0.25,
    val_frac: float = 0.1,
    regulators: str | Sequence[str] | None = None,
    embedding: str | None = None,
    embedding_ablation: bool = False,
    layer: str | None = None,
    folder: str | Path | None = None,
    seed: int | None = 0,
    n_jobs: int | None = None,
    progress: bool | None = None,
    mod: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Fit methods on many splits of a known network, and judge each on the pairs that were held out.

    For every seed and scheme the known edges are split anew by :func:`sctrellis.pp.split_edges`, each method is fitted
    with that seed, and :func:`sctrellis.tl.evaluate` measures it on the test fold. The object is not changed but for
    the table. Expects log-normalised expression, as the methods do.

    Parameters
    ----------
    adata
        Cells x genes with a known network in ``.varp``; a MuData with ``mod``.
    methods
        Names, or a mapping from names of your own to a method's name or to ``(method, arguments)``. A method is a
        baseline of :func:`sctrellis.tl.baseline`, ``"cosine"`` (of the embeddings of both genes), ``"prefix"`` (leading
        characters that both symbols share), a classifier of :func:`sctrellis.tl.edge_classifier` (``"one_hot"``,
        ``"matcomp"``, ``"genelink"``, ``"scgreat"``, ``"embedding_lr"``), ``"deepsem"``, ``"regnet"``, ``"infosem"``
        (uninformed), ``"infosem_b"`` (with the embedding), ``"infosem_c"`` (with the known edges of the train fold),
        ``"infosem_bc"`` (both), or a function of your own that takes the object first and writes a network to
        ``.varp[key_added]``; it is given what it has parameters for among ``network``, ``embedding``, ``seed``,
        ``layer``, ``regulators``, ``n_jobs``, ``progress``.
    network
        Key of ``adata.varp`` with known edges. Folds that are there are not used.
    scheme
        One or more schemes of :func:`sctrellis.pp.split_edges`. ``"infosem"`` is judged for each class of pairs
        (``"SS"``, ``"SU"``, ``"US"``, ``"UU"``: which of regulator and target were seen).
    seeds
        Number of splits, with seeds from ``seed`` on; or the seeds themselves.
    metrics
        Metrics of :func:`sctrellis.tl.evaluate`.
    universe
        Candidate pairs; see :func:`sctrellis.tl.evaluate`.
    test_frac, val_frac
        Shares held out for testing and for validation; see :func:`sctrellis.pp.split_edges`.
    regulators
        Candidate regulators: None for ``adata.var["is_regulator"]``, the name of another Boolean column of
        ``adata.var``, ``"all"``, or gene names.
    embedding
        Key of ``adata.varm`` for the methods that read one.
    embedding_ablation
        Whether to run those methods also with the rows of the embedding shuffled over the genes that have one, and with
        random numbers of the same scale.
    layer
        Layer with the expression; None is ``adata.X``.
    folder
        Folder that keeps every finished run as a file, written whole or not at all: called again with the same folder,
        a benchmark that was stopped goes on, and methods, seeds or schemes can be added. Failed runs are tried again.
        None keeps nothing.
    seed
        First seed, in [0, 2**32); None draws one and records it. Not used where ``seeds`` are given one by one.
    n_jobs
        Runs at once: None is ``settings.n_jobs``, -1 all cores. Each run uses one worker; the result does not depend on
        it, up to rounding by the linear algebra library. Through joblib, so ``joblib.parallel_config`` applies.
    progress
        Progress bar over fits; None follows ``settings.progress``.
    mod
        Modality to use where ``adata`` is a MuData.
    key_added
        Key of ``adata.uns`` for the table and its record; None is ``"benchmark"``.

    Returns
    -------
    DataFrame
        One row per method, embedding, scheme, class of pairs, seed, metric and level, also stored in
        ``adata.uns[key_added]["table"]``. Columns:

        ``method``, ``kind``, ``embedding``
            Name; ``"method"``, or ``"baseline"`` for what has to be beaten; ``"real"``, ``"shuffled"`` or ``"random"``,
            ``"none"`` for methods without one.
        ``scheme``, ``pair_class``, ``seed``
            The split. ``pair_class`` is ``"all"`` but for ``"infosem"``.
        ``metric``, ``level``, ``value``, ``base``, ``n_pairs``, ``n_positive``, ``n_regulators``, ``scored``
            As in :func:`sctrellis.tl.evaluate`; pairs without a score are ranked last.
        ``seconds``, ``wall_seconds``, ``peak_memory_mb``
            Cost of the fit alone: CPU seconds of the process (``time.process_time``, all threads), seconds on the
            clock, and the most resident memory in use less that at the start, looked at every 10 ms (where the system
            has no ``/proc``: growth of the most ever used, 0 where an earlier run used more). With workers that are
            threads, runs are counted into one another.
        ``note``, ``error``
            Warnings of the run; why it failed, or empty. A run that failed is one row with NaN as its ``value``.

    ``adata.uns[key_added]`` : dict
        Record of the run with ``table``.

    Raises
    ------
    KeyError
        If the network, the embedding, a layer, a column or a modality is missing.
    TypeError
        If a method cannot be called with its arguments.
    ValueError
        If a method, scheme or metric is unknown, a method reads an embedding and none is named, or `folder` holds runs
        with other settings.
    OSError
        If a run cannot be written to `folder`; what was finished stays.

    Warns
    -----
    UserWarning
        If runs failed: they are rows with an ``error``, the others are as they would be without them.

    Notes
    -----
    A method that reads no known edges is fitted once per seed and judged on all schemes. The seed of the split is also
    that of the fit, so that rows with equal scheme and seed are paired. The times in the table differ from call to
    call; nothing else does.

    Differences between methods are best read split by split: the splits of one scheme differ much from one another
    where there are few regulators.

    Examples
    --------
    >>> import sctrellis as tr
    >>> adata = tr.datasets.simulate_grn(80, 40, 12, density=0.2)
    >>> adata.varp["network"] = adata.varp["truth"]
    >>> table = tr.tl.benchmark(adata, ["pearson", "degree"], scheme="edge", seeds=2, metrics=["auroc"])
    >>> table.query("level == 'micro'")[["method", "seed"]].to_numpy().tolist()
    [['pearson', 0], ['pearson', 1], ['degree', 0], ['degree', 1]]
    """
    from joblib import Parallel, delayed

    values = locals()
    schemes = _several("scheme", scheme, _SCHEMES)
    chosen = _several("metrics", metrics, get_args(Metric))
    checks.choice("universe", universe, universes.UNIVERSES)
    test_frac = checks.number("test_frac", test_frac, low=0, high=1, open_low=True, open_high=True)
    val_frac = checks.number("val_frac", val_frac, low=0, high=1, open_high=True)
    seed, workers = checks.seed(seed), checks.n_jobs(n_jobs)
    splits = _seeds(seeds, seed)
    slot = Keys.for_method("benchmark", key_added)
    _, ad = slots.target(adata, mod=mod)
    plans = [runs.plan(name, spec, network=network, embedding=embedding) for name, spec in _specified(methods).items()]
    slots.read_network(ad, network)
    embeddings = sorted({p.embedding for p in plans if p.embedding is not None} | ({embedding} if embedding else set()))
    for key in embeddings:
        slots.read_embedding(ad, key)
    common = runs.Common(network, universe, test_frac, val_frac, tuple(chosen), regulators, layer)
    shared = runs.settings(ad, common, embeddings)
    if folder is not None:
        common = runs.Common(
            network, universe, test_frac, val_frac, tuple(chosen), regulators, layer,
            str(runs.open_folder(folder, shared)),
        )  # fmt: skip

    done: dict[tuple[int, str, str, int], list[dict[str, Any]]] = {}
    tasks: list[runs.Task] = []
    for i, plan in enumerate(plans):
        kinds = [runs.NO_EMBEDDING] if plan.embedding is None else [runs.REAL]
        if plan.embedding is not None and embedding_ablation:
            kinds += [runs.SHUFFLED, runs.RANDOM]
        for kind in kinds:
            for split in splits:
                open_schemes = []
                for name in schemes:
                    stored = runs.finished(runs.Task(plan, kind, split, (name,), common), name)
                    done[i, kind, name, split] = stored or []
                    if stored is None:
                        open_schemes.append(name)
                groups = [(name,) for name in open_schemes] if plan.labels else [tuple(open_schemes)]
                tasks += [runs.Task(plan, kind, split, group, common) for group in groups if group]
    base = runs.part(ad, common, embeddings)
    n_stored = sum(map(bool, done.values()))
    if n_stored:
        logs.logger.info("%d runs were there already; %d fits to go", n_stored, len(tasks))
    place = {plan.name: i for i, plan in enumerate(plans)}
    jobs = Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(runs.run)(base, task) for task in tasks)
    with logs.progress_bar(len(tasks), "benchmark", progress=progress, unit="fit") as bar:
        for rows in jobs:
            for row in rows:
                done[place[row["method"]], row["embedding"], row["scheme"], row["seed"]].append(row)
            bar.update()

    table = runs.table([row for rows in done.values() for row in rows])
    params = record.arguments(benchmark, values)
    del params["folder"]
    described = {plan.name.replace("/", "|"): str(plan.described()) for plan in plans}
    entry = record.build(
        "benchmark",
        ad,
        params={
            **params,
            "methods": [plan.name for plan in plans],
            "scheme": schemes,
            "metrics": chosen,
            "seeds": splits,
            "regulators": regulators if regulators is None or isinstance(regulators, str) else list(regulators),
        },
        seed=seed,
        slots={"table": f"uns/{slot.record}/table"},
        layer=layer,
        extra={"table": table, "settings": {k: v for k, v in shared.items() if k != "layer"}, "called": described},
    )
    logs.added(slots.write(ad, uns={slot.record: entry}))
    failed = table[table["error"] != ""]
    if len(failed):
        first = failed.iloc[0]
        checks.warn(
            f"{len(failed)} of the runs failed, as {first['method']!r} on {first['scheme']!r} ({first['pair_class']}), "
            f"seed {first['seed']}: {first['error']} The column 'error' has all of them."
        )
    return table


def _several(argument: str, chosen: str | Sequence[str], options: Sequence[str]) -> list[str]:
    listed = [chosen] if isinstance(chosen, str) else list(chosen)
    if not listed or len(set(listed)) < len(listed):
        msg = f"Expected `{argument}` to hold at least one name, each once; found {listed!r}."
        raise ValueError(msg)
    for value in listed:
        checks.choice(argument, value, options)
    return listed


def _seeds(seeds: Any, first: int) -> list[int]:
    if isinstance(seeds, Sequence) and not isinstance(seeds, str):
        listed = [checks.integer("seeds", value, minimum=0) for value in seeds]
        if not listed or len(set(listed)) < len(listed):
            msg = f"Expected `seeds` to hold at least one seed, each once; found {listed!r}."
            raise ValueError(msg)
        return [checks.seed(value) for value in listed]
    n = checks.integer("seeds", seeds)
    return [checks.seed(first + i) for i in range(n)]


def _specified(methods: Any) -> dict[str, tuple[Any, Mapping[str, Any]] | None]:
    """Return name -> (method or function, arguments), or None where the name says it all."""
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, Mapping):
        listed = list(methods)
        if not listed or len(set(listed)) < len(listed) or not all(isinstance(name, str) for name in listed):
            msg = f"Expected `methods` to hold at least one name, each once; found {listed!r}."
            raise ValueError(msg)
        return dict.fromkeys(listed)
    if not methods:
        msg = "Expected `methods` to hold at least one method, found none."
        raise ValueError(msg)
    found: dict[str, tuple[Any, Mapping[str, Any]] | None] = {}
    for name, spec in methods.items():
        if isinstance(spec, str) or callable(spec):
            spec = (spec, {})
        two = isinstance(spec, tuple | list) and len(spec) == 2 and isinstance(spec[1], Mapping)
        if not isinstance(name, str) or not two:
            msg = f"`methods`: expected a name and `(method, arguments)`, found {name!r}: {spec!r}."
            raise TypeError(msg)
        found[name] = (spec[0], spec[1])
    return found
