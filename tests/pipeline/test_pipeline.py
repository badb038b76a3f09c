import json

import pytest
from tfx.dsl.compiler import compiler

from pipeline import pipeline
from pipeline.local import runner
from settings import loading


@pytest.fixture
def create(tiny_dataset, tmp_path):
    def create_pipeline(*overrides):
        settings = loading.load(overrides=overrides, values={"root": str(tmp_path)})
        return settings, pipeline.create_pipeline(settings, "tiny", tiny_dataset, "0" * 64)

    return create_pipeline


def _nodes(graph):
    return {
        node.pipeline_node.node_info.id: node.pipeline_node
        for node in compiler.Compiler().compile(graph).nodes
    }


@pytest.mark.parametrize("tune", ["true", "false"])
def test_the_components_are_those_that_the_settings_list(create, tune):
    settings, graph = create(f"tuner.enabled={tune}")
    assert [
        node.pipeline_node.node_info.id for node in compiler.Compiler().compile(graph).nodes
    ] == settings.steps()


def test_nothing_is_trained_before_the_data_gate(create):
    nodes = _nodes(create()[1])
    assert "DataGate" in nodes["Transform"].upstream_nodes
    for trained in ("Tuner", "Trainer"):
        assert "Transform" in nodes[trained].upstream_nodes


def test_the_pusher_needs_both_blessings(create):
    inputs = _nodes(create()[1])["Pusher"].inputs.inputs
    producers = {
        key: inputs[key].channels[0].producer_node_query.id for key in ("model_blessing", "infra_blessing")
    }
    assert producers == {"model_blessing": "Evaluator", "infra_blessing": "ServingCheck"}


def test_only_the_evaluation_reads_the_test_split(create):
    nodes = _nodes(create()[1])

    def parameters(name):
        return {
            key: value.field_value.string_value for key, value in nodes[name].parameters.parameters.items()
        }

    assert parameters("Evaluator")["example_splits"] == '["test"]'
    for trained in ("Tuner", "Trainer"):
        assert '"train"' in parameters(trained)["train_args"]
        assert '"val"' in parameters(trained)["eval_args"]


def test_a_rerun_includes_all_dependents_and_nothing_else(create):
    ir = compiler.Compiler().compile(create()[1])
    nodes = [node.pipeline_node for node in ir.nodes]
    runner._disable_cache_from(nodes, ["Evaluator"])
    rerun = {n.node_info.id for n in nodes if not n.execution_options.caching_options.enable_cache}
    assert rerun - {"Baseline"} == {"Evaluator", "ModelReport", "Pusher"}


def test_changed_gates_do_not_change_the_parameters_of_the_trainer(create):
    def training(*overrides):
        parameters = _nodes(create(*overrides)[1])["Trainer"].parameters.parameters
        return parameters["custom_config"].field_value.string_value

    assert training() == training("evaluation.min_accuracy=0.9", "tuner.trials=1")
    assert training() != training("model.cnn.dropout=0.5")


def test_how_images_are_resized_reaches_transform_and_changes_no_step_before_it(create):
    def parameters(*overrides):
        nodes = _nodes(create(*overrides)[1])
        return {
            name: {key: value.field_value.string_value for key, value in node.parameters.parameters.items()}
            for name, node in nodes.items()
        }

    before = parameters("model.image_size=24", "model.resize=stretch")
    after = parameters("model.image_size=24", "model.resize=pad")
    assert json.loads(after["Transform"]["custom_config"])["resize"] == "pad"
    # The network learns from other images, and the report describes the settings.
    assert {name for name in before if before[name] != after[name]} == {
        "Transform",
        "Tuner",
        "Trainer",
        "ModelReport",
    }
    colored = parameters("model.image_size=24", "model.resize=stretch", "model.background=red")
    assert json.loads(colored["Transform"]["custom_config"])["background"] == [255, 0, 0]
    # DataGate compares and shows images on the background.
    changed = {name for name in before if before[name] != colored[name]}
    assert changed == {"DataGate", "Transform", "Tuner", "Trainer", "ModelReport"}
