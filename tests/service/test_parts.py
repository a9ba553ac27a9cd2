"""The parts of a graph, against the library that wrote it."""

import pytest
from onnx import helper

from service.scoring.parts import UNREADABLE, Graph
from tests.service.toy_bundle import toy_model


def test_nodes_are_those_of_the_model() -> None:
    graph, expected = Graph.of(toy_model().SerializeToString()), toy_model().graph
    found = [(node.operator, node.inputs, node.outputs, len(node.attributes)) for node in graph.nodes]
    assert found == [(n.op_type, [*n.input], [*n.output], len(n.attribute)) for n in expected.node]
    assert (len(graph.initializers), len(graph.inputs)) == (len(expected.initializer), len(expected.input))


def test_a_change_is_where_it_should_be_and_lengths_fit() -> None:
    content = toy_model().SerializeToString()
    graph = Graph.of(content)
    assert graph.changed([]) == content
    first, last = graph.nodes[0].field, graph.nodes[-1].field
    copy = content[first.begin : first.stop]
    found = Graph.of(graph.changed([(last.begin, last.stop, b""), (first.begin, first.stop, copy * 30)]))
    assert [n.operator for n in found.nodes] == [n.operator for n in [graph.nodes[0]] * 30 + graph.nodes[1:-1]]


def test_a_graph_within_the_graph_cannot_be_read() -> None:
    model = toy_model()
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))
    with pytest.raises(UNREADABLE):
        Graph.of(model.SerializeToString())
