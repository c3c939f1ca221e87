import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from sctrellis.metrics._hits import Selection, confirmed_table, decay_table, hit_table
from sctrellis.metrics._intervals import Intervals

WINDOWS = (100_000, 500_000, 1_000_000, 10_000_000)
BODY = (50_000_000, 50_100_000)
# The study of the published table: its accessible peaks by chromosome, in its order.
CHROMOSOMES = [1, *range(10, 20), 2, 20, 21, 22, *range(3, 10), "X", "Y"]
PEAKS = [
    11348, 6169, 6997, 6364, 3554, 4233, 4076, 4178, 4966, 3189, 3807, 10272, 3469, 1478, 2488, 8367, 6290, 7655, 7203,
    6950, 6250, 5547, 2245, 124,
]  # fmt: skip
# Length of hg38's chromosomes in Mb, and how much of it has a sequence. No peak lies in what has none; we take it to be
# at the start of the chromosome, where nearly all of it is on 13, 14, 15, 21 and 22.
LENGTHS = {
    1: (248.96, 230.48), 2: (242.19, 240.55), 3: (198.30, 198.10), 4: (190.21, 189.75), 5: (181.54, 181.27),
    6: (170.81, 170.08), 7: (159.35, 158.97), 8: (145.14, 144.77), 9: (138.39, 121.79), 10: (133.80, 133.26),
    11: (135.09, 134.53), 12: (133.28, 133.14), 13: (114.36, 97.98), 14: (107.04, 90.57), 15: (101.99, 84.64),
    16: (90.34, 81.81), 17: (83.26, 82.92), 18: (80.37, 80.09), 19: (58.62, 58.44), 20: (64.44, 63.94),
    21: (46.71, 40.09), 22: (50.82, 39.16), "X": (156.04, 154.89), "Y": (57.23, 26.42),
}  # fmt: skip
# Chromosome and start of transcription in Mb of its 16 tasks.
TASKS = [
    (2, 170.8), (10, 26.2), (2, 170.8), (10, 26.2), (7, 8.4), (21, 33.1), (21, 33.0), (13, 28.5), (22, 19.5), (9, 72.9),
    (18, 26.9), (6, 121.4), (3, 39.5), (6, 29.7), (3, 39.3), (10, 26.4),
]  # fmt: skip


def selection(elements, pairs, anchors, *, allowed=None, stratum=None, chrom=None):
    """Return a selection from elements and anchors as (chrom, start, end) and pairs of task and element."""
    elements, anchors = np.array(elements), np.array(anchors)
    task, element = np.array(pairs).T
    n_tasks = len(anchors) if chrom is None else len(chrom)
    return Selection(
        elements=Intervals(*elements.T),
        task=task,
        element=element,
        allowed=None if allowed is None else sparse.csr_matrix(allowed),
        stratum=np.zeros(len(elements), int) if stratum is None else np.array(stratum),
        anchor=Intervals(*anchors[:, -3:].T),
        anchor_task=np.arange(n_tasks) if chrom is None else anchors[:, 0],
        chrom=anchors[:, 0] if chrom is None else np.array(chrom),
    )


@pytest.mark.parametrize(
    ("start", "chrom", "hit", "within_10_mb"),
    [
        (BODY[1] - 1, 0, 1, 1),  # overlaps the body by a base
        (BODY[1] + 9_900_000, 0, 0, 1),
        (BODY[1] + 10_100_000, 0, 0, 0),
        (BODY[0], 1, 0, 0),
    ],
)
def test_hit_and_soft_hit(start, chrom, hit, within_10_mb):
    elements = [(chrom, start, start + 500), *[(2, i * 1_000, i * 1_000 + 500) for i in range(50)]]
    table = hit_table(selection(elements, [(0, 0)], [(0, *BODY)]), WINDOWS).set_index("window")
    assert table.loc[0, "hit_ratio"] == hit
    assert table.loc[10_000_000, "hit_ratio"] == within_10_mb
    assert table.loc[10_000_000, "n_in_window"] == within_10_mb


def uniform_genome(seed=0):
    rng = np.random.default_rng(seed)
    code = {name: i for i, name in enumerate(CHROMOSOMES)}
    start = []
    for name, n in zip(CHROMOSOMES, PEAKS, strict=True):
        length, known = LENGTHS[name]
        start.append(np.sort((length - rng.random(n) * known) * 1e6).astype(int))
    start = np.concatenate(start)
    chrom = np.repeat(np.arange(len(CHROMOSOMES)), PEAKS)
    assert len(start) == 127_219
    anchors = np.array([(code[c], int(mb * 1e6), int(mb * 1e6) + 1) for c, mb in TASKS])
    return np.column_stack([chrom, start, start + 500]), anchors


@pytest.mark.parametrize(
    ("n_peaks", "window", "expected"),
    [
        (10, 10_000_000, 0.065),
        (128, 10_000_000, 0.576),
        (10, 1_000_000, 0.007),
        (128, 1_000_000, 0.084),
        (10, 500_000, 0.0034),
        (128, 500_000, 0.043),
    ],
)
def test_chance_of_the_published_comparison(n_peaks, window, expected):
    elements, anchors = uniform_genome()
    pairs = [(task, peak) for task in range(16) for peak in range(n_peaks)]
    table = hit_table(selection(elements, pairs, anchors), WINDOWS).set_index("window")
    assert table.loc[window, "expected"] == pytest.approx(expected, abs=0.01)


def hits_in(elements, anchors, n_hit, n_peaks):
    """Select peaks so that exactly ``n_hit`` tasks have one within 10 Mb."""
    chrom, start, _ = elements.T
    pairs = []
    for task, (c, at, _) in enumerate(anchors):
        inside = np.flatnonzero((chrom == c) & (np.abs(start - at) < 9e6))
        outside = np.flatnonzero(chrom != c)[:n_peaks]
        chosen = [inside[0], *outside[1:]] if task < n_hit else outside
        pairs += [(task, peak) for peak in chosen]
    return selection(elements, pairs, anchors)


@pytest.mark.parametrize(
    ("n_peaks", "n_hit", "low", "high"),
    [(10, 2, 0.25, 0.32), (10, 4, 0.014, 0.021), (128, 9, 0.60, 0.70), (128, 11, 0.22, 0.31)],
)
def test_chance_of_as_many_hits(n_peaks, n_hit, low, high):
    elements, anchors = uniform_genome()
    table = hit_table(hits_in(elements, anchors, n_hit, n_peaks), WINDOWS).set_index("window")
    assert table.loc[10_000_000, "n_hit"] == n_hit
    assert low < table.loc[10_000_000, "p_expected"] < high


def small(seed=0, n_elements=60, n_tasks=5):
    """Return a selection from few allowed elements on two chromosomes, with strata and two anchors a task."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 3_000_000, size=n_elements)
    elements = np.column_stack([rng.integers(0, 2, n_elements), start, start + 400])
    chrom = rng.integers(0, 2, n_tasks)
    at = rng.integers(0, 3_000_000, size=2 * n_tasks)
    task = np.repeat(np.arange(n_tasks), 2)
    anchors = np.column_stack([task, chrom[task], at, at + 2_000])
    allowed = rng.random((n_tasks, n_elements)) < 0.6
    pairs = [(t, e) for t in range(n_tasks) for e in rng.choice(np.flatnonzero(allowed[t]), size=6, replace=False)]
    return selection(elements, pairs, anchors, allowed=allowed, stratum=rng.integers(0, 3, n_elements), chrom=chrom)


def brute_force(s):
    """Return, for every task, the distance of each element from the nearest anchor."""
    found = np.full((s.n_tasks, len(s.elements)), np.inf)
    for i, task in enumerate(s.anchor_task):
        same = s.elements.chrom == s.anchor.chrom[i]
        gap = np.maximum(s.elements.start - s.anchor.end[i], s.anchor.start[i] - s.elements.end) + 1
        found[task] = np.minimum(found[task], np.where(same, np.maximum(gap, 0), np.inf))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_hit_table_against_brute_force(seed):
    s, windows = small(seed), (20_000, 300_000)
    distances, allowed = brute_force(s), s.allowed.toarray()
    chosen = np.zeros(allowed.shape, dtype=bool)
    chosen[s.task, s.element] = True
    for row in hit_table(s, windows).itertuples():
        inside = distances <= row.window
        assert row.n_hit == (inside & chosen).any(axis=1).sum()
        assert row.n_in_window == (inside & chosen).sum()
        n, k, drawn = allowed.sum(1), (inside & allowed).sum(1), chosen.sum(1)
        hit = 1 - stats.hypergeom.pmf(0, n, k, drawn)
        assert row.expected == pytest.approx(hit.mean())
        assert row.share_expected == pytest.approx((drawn * k / n).sum() / drawn.sum())
        none = np.ones(s.n_tasks)
        mean = 0.0
        for q in range(3):
            of = s.stratum == q
            n, k, drawn = allowed[:, of].sum(1), (inside & allowed)[:, of].sum(1), chosen[:, of].sum(1)
            none *= stats.hypergeom.pmf(0, n, k, drawn)
            mean += (drawn * k / n).sum()
        assert row.matched == pytest.approx((1 - none).mean())
        assert row.share_matched == pytest.approx(mean / chosen.sum())


def test_decay_table_against_brute_force():
    s, bins = small(7), (20_000, 300_000)
    distances, allowed = brute_force(s), s.allowed.toarray()
    chosen = np.zeros(allowed.shape, dtype=bool)
    chosen[s.task, s.element] = True
    same = s.elements.chrom == s.chrom[:, None]
    masks = [
        distances <= 20_000, (distances > 20_000) & (distances <= 300_000), same & (distances > 300_000), ~same,
    ]  # fmt: skip
    table = decay_table(s, bins)
    assert table["bin"].tolist() == ["0-20 kb", "20-300 kb", "same chromosome", "other chromosome"]
    assert table["observed"].tolist() == [(mask & chosen).sum() for mask in masks]
    assert table["observed"].sum() == len(s.task)
    for mask, expected in zip(masks, table["expected"], strict=True):
        by_stratum = [
            chosen[t, of].sum() * (mask & allowed)[t, of].sum() / max(allowed[t, of].sum(), 1)
            for t in range(s.n_tasks)
            for of in (s.stratum == q for q in range(3))
        ]
        assert expected == pytest.approx(sum(by_stratum))
    assert table["expected"].sum() == pytest.approx(len(s.task))


def test_random_selections_look_random():
    # p-values of selections drawn as chance draws are not below what they say, and the range covers.
    elements, anchors = uniform_genome()
    elements = elements[::20]
    rng = np.random.default_rng(0)
    p, inside = [], []
    for _ in range(100):
        pairs = [(t, e) for t in range(16) for e in rng.choice(len(elements), size=30, replace=False)]
        s = selection(elements, pairs, anchors)
        p.append(hit_table(s, (10_000_000,))["share_p_expected"].iloc[-1])
        decay = decay_table(s)
        inside.append((decay["observed"] >= decay["expected_low"]) & (decay["observed"] <= decay["expected_high"]))
    assert np.mean(np.array(p) < 0.1) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 100)
    assert np.mean(inside) >= 0.93


def test_all_elements_allowed_is_no_restriction():
    s = small(3)
    everything = np.ones(s.allowed.shape, dtype=bool)
    common = {
        name: getattr(s, name) for name in ("elements", "task", "element", "stratum", "anchor", "anchor_task", "chrom")
    }
    one, other = Selection(allowed=None, **common), Selection(allowed=sparse.csr_matrix(everything), **common)
    pd.testing.assert_frame_equal(hit_table(one, WINDOWS), hit_table(other, WINDOWS))
    pd.testing.assert_frame_equal(decay_table(one), decay_table(other))


def test_more_tasks_than_one_go(monkeypatch):
    from sctrellis.metrics import _hits

    s = small(5)
    expected = hit_table(s, WINDOWS)
    monkeypatch.setattr(_hits, "_TASKS", 2)
    pd.testing.assert_frame_equal(hit_table(s, WINDOWS), expected)


def test_confirmed_by_a_reference():
    # Task 0: three near candidates (two linked) and two far (one linked). Task 1: two far, none linked.
    task = np.array([0, 0, 0, 0, 0, 1, 1])
    distance = np.array([5_000, -2_000, 8_000, 200_000, -300_000, 200_000, 400_000])
    linked = np.array([True, False, True, True, False, False, False])
    selected = np.array([True, False, False, True, False, True, False])
    table = confirmed_table(task=task, distance=distance, linked=linked, selected=selected).set_index("bin")
    assert table.index.tolist() == ["0-10 kb", "100-500 kb", "all"]
    near, far, both = table.loc["0-10 kb"], table.loc["100-500 kb"], table.loc["all"]
    assert (near["n_selected"], near["n_confirmed"]) == (1, 1)
    assert near["expected"] == pytest.approx(2 / 3)
    assert near["p_value"] == pytest.approx(2 / 3)
    assert far["expected"] == pytest.approx(1 / 2)
    assert both["n_confirmed"] == 2
    assert both["expected"] == pytest.approx(2 / 3 + 1 / 2)
    assert both["p_value"] == pytest.approx(1 / 3)
    assert both["enrichment"] == pytest.approx(2 / (7 / 6))
    # The nearest two of task 0 are not linked at 2 kb and linked at 5 kb; the nearest of task 1 is not linked.
    assert both["nearest"] == 1


def test_selecting_the_nearest_is_no_better_than_distance():
    rng = np.random.default_rng(1)
    task = np.repeat(np.arange(40), 20)
    distance = rng.uniform(0, 500_000, size=800)
    linked = rng.random(800) < np.exp(-distance / 50_000)
    rank = pd.Series(distance).groupby(task).rank().to_numpy()
    selected = rank <= 3
    row = confirmed_table(task=task, distance=distance, linked=linked, selected=selected).set_index("bin").loc["all"]
    assert row["nearest"] == row["n_confirmed"]
    knows = selected.copy()
    knows[:] = False
    order = np.lexsort((~linked, task)).reshape(40, 20)[:, :3]
    knows[order.ravel()] = True
    better = confirmed_table(task=task, distance=distance, linked=linked, selected=knows).set_index("bin").loc["all"]
    assert better["p_value"] < 1e-6
    assert better["n_confirmed"] > better["nearest"]
