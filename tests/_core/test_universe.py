import numpy as np
import pytest
from scipy import sparse

from sctrellis._core import universe

N = 12


def _known(seed):
    """A known network with edges, non-edges, a self edge and an explicit zero; some genes have no edge."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, N - 2, 25), rng.integers(0, N - 2, 25)
    value = rng.choice([1.0, 0.5, -1.0], 25).astype(np.float32)
    known = {(int(r), int(c)): float(v) for r, c, v in zip(row, column, value, strict=True)}
    known[3, 3] = 1.0
    r, c = zip(*known, strict=True)
    network = sparse.csr_matrix((list(known.values()), (r, c)), shape=(N, N), dtype=np.float32)
    return known, network


def _stored(matrix):
    coo = matrix.tocoo()
    assert coo.data.all()
    return set(zip(coo.row.tolist(), coo.col.tolist(), strict=True))


def _brute(known, regulators, mode):
    edges = {(r, c) for (r, c), v in known.items() if v > 0 and r != c}
    genes = {g for edge in edges for g in edge}
    if mode == "beeline_tf":
        pairs = {(r, c) for r in {r for r, _ in edges} for c in genes}
    elif mode == "beeline_all":
        pairs = {(r, c) for r in genes for c in genes}
    elif mode == "listed":
        pairs = {(r, c) for r in np.flatnonzero(regulators).tolist() for c in range(N)}
    else:
        pairs = set(known)
    return {(r, c) for r, c in pairs if r != c}


@pytest.mark.parametrize("mode", universe.UNIVERSES)
@pytest.mark.parametrize("seed", range(4))
def test_pairs_equal_brute_force(mode, seed):
    known, network = _known(seed)
    regulators = np.random.default_rng(seed).random(N) < 0.4
    regulators[0] = True
    found = universe.pairs(network, regulators, mode)
    assert (found.shape, found.dtype) == ((N, N), bool)
    assert _stored(found) == _brute(known, regulators, mode)


def test_only_listed_needs_regulators():
    _, network = _known(0)
    for mode in ("beeline_tf", "beeline_all", "labelled"):
        with_mask = universe.pairs(network, np.ones(N, bool), mode)
        assert (universe.pairs(network, None, mode) != with_mask).nnz == 0
    with pytest.raises(ValueError, match=r"`universe='listed'` needs candidate regulators: run `sctrellis.pp"):
        universe.pairs(network, None, "listed")


def test_a_network_without_edges_has_no_pairs():
    nothing = sparse.csr_matrix((N, N), dtype=np.float32)
    for mode in ("beeline_tf", "beeline_all", "labelled"):
        assert universe.pairs(nothing, None, mode).nnz == 0
    only_non_edges = sparse.csr_matrix(([-1.0], ([0], [1])), shape=(N, N))
    assert universe.pairs(only_non_edges, None, "beeline_tf").nnz == 0
    assert _stored(universe.pairs(only_non_edges, None, "labelled")) == {(0, 1)}


def test_unknown_universe():
    with pytest.raises(ValueError, match=r"`universe` to be one of 'beeline_tf', 'beeline_all', 'listed', 'labelled'"):
        universe.pairs(sparse.csr_matrix((N, N)), None, "all")


def test_the_network_is_left_alone():
    _, network = _known(1)
    before = network.copy()
    universe.pairs(network, None, "beeline_all")
    np.testing.assert_array_equal(network.indices, before.indices)
    np.testing.assert_array_equal(network.data, before.data)
