"""What is said about the model fits the manifest."""

from service.api.v2.metadata import model_config, model_metadata
from service.scoring.scorer import Scorer


def test_metadata_and_configuration_list_every_input_and_output_once(scorer: Scorer) -> None:
    names = [*(entry.name for entry in scorer.manifest.inputs), "row_user"]
    outputs = [output.name for output in scorer.manifest.outputs]
    told, config = model_metadata(scorer), model_config(scorer)
    assert [entry["name"] for entry in told["inputs"]] == [entry["name"] for entry in config["input"]] == names
    assert [entry["name"] for entry in told["outputs"]] == [entry["name"] for entry in config["output"]] == outputs


def test_axes_are_free_and_as_many_as_the_graph_has(scorer: Scorer) -> None:
    shapes = {entry["name"]: entry["shape"] for entry in model_metadata(scorer)["inputs"]}
    for name, port in scorer.session.inputs.items():
        assert shapes[name] == [-1] * (port.rank or 0)
