import anndata
import networkx as nx
import numpy as np
import pytest
from scipy import sparse

import sctrellis as tr
from sctrellis._core import slots


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(np.ones((12, 20), np.float32))
    adata.var_names = [f"G{i:02d}" for i in rng.permutation(20)]
    scores = np.round(rng.normal(size=(6, 20)), 1).astype(np.float32)
    network = slots.network_csr(scores, np.array([1, 4, 5, 9, 12, 17]), np.arange(20), 20)
    std = network.copy()
    std.data = rng.random(std.nnz).astype(np.float32)
    slots.write(adata, varp={"net": network, "net_std": std})
    return adata


def test_graph_is_the_table_less_its_zeros(adata):
    table = tr.get.edges(adata, "net")
    assert (table["score"] == 0).any()
    graph = tr.get.graph(adata, "net")
    expected = {(row.source, row.target): row for row in table[table["score"] > 0].itertuples()}
    assert set(graph.edges) == set(expected)
    for edge, values in graph.edges.items():
        row = expected[edge]
        assert values == {"weight": float(row.weight), "score": float(row.score), "std": float(row.std)}


def test_adjacency_matrix_is_the_stored_network(adata):
    graph = tr.get.graph(adata, "net")
    dense = nx.to_numpy_array(graph, nodelist=list(adata.var_names), weight="weight")
    np.testing.assert_array_equal(dense.astype(np.float32), adata.varp["net"].toarray())


def test_is_regulator_does_not_depend_on_the_choice(adata):
    regulators = set(adata.var_names[[1, 4, 5, 9, 12, 17]])
    few = tr.get.graph(adata, "net", n_top=15)
    assert few.number_of_edges() == 15
    assert {node for node, value in few.nodes(data="is_regulator") if value} == regulators & set(few)
    # A regulator that is only a target among those chosen is still one.
    name = adata.var_names[4]
    into = tr.get.graph(adata, "net", targets=name)
    assert into.nodes[name]["is_regulator"]
    assert into.out_degree(name) == 0


def test_known_non_edges_are_no_edges():
    adata = anndata.AnnData(np.ones((12, 3), np.float32))
    adata.var_names = ["A", "B", "C"]
    labels = sparse.csr_matrix(np.array([[0, -1, 0.5], [0, 0, 0], [1, 0, 0]], np.float32))
    slots.write(adata, varp={"net": labels}, uns={"net": {"schema": 1, "method": "network"}})
    assert set(tr.get.graph(adata, "net").edges) == {("A", "C"), ("C", "A")}


def test_graph_can_be_written(adata, tmp_path):
    graph = tr.get.graph(adata, "net", n_top=20)
    nx.write_gml(graph, tmp_path / "g.gml")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    again = nx.read_graphml(tmp_path / "g.graphml")
    assert dict(again.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {edge: again.edges[edge] for edge in again.edges} == {edge: graph.edges[edge] for edge in graph.edges}


def test_unknown_key(adata):
    with pytest.raises(KeyError, match="'nett' not found in `adata.varp`"):
        tr.get.graph(adata, "nett")
