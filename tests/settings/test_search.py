import itertools

import pytest

from settings import loading, search
from settings.base import ConfigError


def load(*overrides):
    return loading.load(overrides=overrides, on_base=True)


def searched(*overrides):
    return load(*overrides).searched()


def resolve(*overrides):
    config = load(*overrides)
    return {each.key: each for each in search.resolve(config.searched(), config)}


def test_learning_rate_and_batch_size_are_searched_by_default():
    assert list(loading.load().searched()) == ["trainer.learning_rate", "trainer.batch_size"]
    assert list(searched()) == ["trainer.learning_rate", "trainer.batch_size"]


def test_presets_and_set_add_to_the_space_change_it_and_leave_settings_out(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "tuner:\n  space:\n    trainer.learning_rate: {max: 0.3}\n    trainer.batch_size: null\n"
        "    model:\n      cnn: {dropout: [0, 0.5]}\n"
    )
    config = loading.load([preset], ["tuner.space.augmentation.flip=[true, false]"], on_base=True)
    rate = search.Range(min=0.1, max=0.3, log=True)
    assert config.searched() == {
        "trainer.learning_rate": rate,
        "model.cnn.dropout": (0, 0.5),
        "augmentation.flip": (True, False),
    }
    origins = {row["key"]: (row["value"], row["origin"]) for row in config.describe()}
    assert origins["tuner.space.trainer.learning_rate.min"] == (0.1, "quick.yaml")
    assert origins["tuner.space.trainer.learning_rate.max"] == (0.3, "mine.yaml")
    assert origins["tuner.space.augmentation.flip"] == ([True, False], "--set")
    # A whole space replaces the one of the presets.
    only = loading.load([preset], ["tuner.space={model.cnn.dropout: [0.1]}"], on_base=True)
    assert only.tuner.space == {"model.cnn.dropout": (0.1,)}


def test_a_setting_of_the_command_line_is_left_out_of_the_search():
    dropout = "tuner.space.model.cnn.dropout={min: 0, max: 0.5}"
    assert "model.cnn.dropout" in searched(dropout)
    pinned = load(dropout, "model.cnn.dropout=0.25")
    assert list(pinned.searched()) == ["trainer.learning_rate", "trainer.batch_size"]
    assert pinned.tuner_settings().model.cnn.dropout == 0.25
    assert not load("trainer.learning_rate=0.1", "trainer.batch_size=8").has_tuner


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{model.cnn.dropot: [0.1]}", "model.cnn.dropot: no setting.*did you mean model.cnn.dropout"),
        ("{trainer.weight_deca: [0.1]}", "did you mean trainer.weight_decay"),
        ("{evaluation.min_accuracy: [1]}", "Allowed are those of trainer, augmentation, model.cnn"),
        ("{model.mobilenetv2.dropout: [0.1]}", "is not used, because model.architecture=cnn"),
        ("{model.cnn.dropot: null}", "did you mean model.cnn.dropout"),
        ("{model.image_size: [32]}", "no setting that can be searched"),
        ("{trainer.epochs: [1, 2]}", "trainer.epochs: cannot be searched: a trial has tuner.epochs"),
        ("{model.cnn.dropout: {min: 0, max: 1}}", "dropout: input should be less than 1; found 1.0"),
        ("{model.cnn.dropout: {min: -0.1, max: 0.5}}", "greater than or equal to 0; found -0.1"),
        ("{trainer.optimizer: [adamw, sgdd]}", "trainer.optimizer: input should be 'adam'.*found 'sgdd'"),
        ("{trainer.optimizer: {min: 1, max: 2}}", "takes no range; give a list"),
        ("{model.cnn.filters: [32, 64]}", r"each value is a list, such as \[\[\d+, .*\]\]; found 32"),
        ("{augmentation.flip: [1]}", "augmentation.flip: input should be a valid boolean; found 1"),
        ("{trainer.batch_size: {min: 8, max: 16.5}}", "batch_size: takes whole numbers, found 16.5"),
        (
            "{trainer.learning_rate: {min: 0.1, max: 0.01}}",
            r"min \(0.1\) must not be larger than max \(0.01\)",
        ),
        ("{trainer.learning_rate: {min: 0, max: 1, log: true}}", "log needs a min above 0, found 0"),
        ("{trainer.learning_rate: {min: 1, max: 8, log: true, step: 1}}", "step is a factor above 1"),
        (
            "{trainer.learning_rate: {min: 0.1, mx: 1}}",
            "max: field required.*mx: a range has min, max, log, step",
        ),
        ("{trainer.learning_rate: 0.1}", "expected a range such as .* or a list of values, found 0.1"),
        ("{trainer.batch_size: []}", "expected at least one value"),
        ("{trainer.batch_size: [8, 8]}", "expected each value once"),
        ("{model.cnn.dropout: {min: 0, max: 0.5, step: 1e-9}}", "more than 10,000 values"),
        ("64", "expected a mapping such as"),
        (
            "{trainer.optimizer: [adam], trainer.weight_decay: [0.1, 0.2]}",
            "the settings refuse all combinations that were tried: weight_decay is for",
        ),
    ],
)
def test_a_space_that_the_settings_refuse_is_named_before_anything_runs(space, message):
    with pytest.raises(ConfigError, match=message):
        load(f"tuner.space={space}")


def test_all_problems_of_a_space_are_listed():
    with pytest.raises(ConfigError, match=r"(?s)trainer.batch_size: .*\n  tuner.space: model.cnn.dropot: "):
        load("tuner.space={trainer.batch_size: [0], model.cnn.dropot: [1]}")


def test_the_layers_of_a_network_are_checked_by_the_networks_own_validator():
    with pytest.raises(ConfigError, match="block_13_expnd is not a layer of MobileNetV2; similar ones are"):
        loading.load(
            overrides=["tuner.space.model.mobilenetv2.fine_tune_from=[block_6_expand, block_13_expnd]"],
            values={"model.architecture": "mobilenetv2"},
            on_base=True,
        )


def test_values_have_the_type_of_the_setting():
    space = resolve(
        "tuner.space={model.cnn.dropout: {min: 0, max: 0.5, step: 0.1}, trainer.batch_size: {min: 8, max: 64,"
        " log: true, step: 2}, trainer.label_smoothing: [0, 0.1], augmentation.rotation_degrees: {min: 0, "
        "max: 9}}"
    )
    # KerasTuner's own steps leave 0.5 out.
    assert space["model.cnn.dropout"].values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert space["trainer.batch_size"].values == (8, 16, 32, 64)
    assert all(type(value) is float for value in space["trainer.label_smoothing"].values)
    assert (space["augmentation.rotation_degrees"].low, space["augmentation.rotation_degrees"].high) == (0, 9)


@pytest.mark.parametrize("log", ["true", "false"])
def test_a_range_of_whole_numbers_reaches_both_of_its_ends(log):
    dimension = resolve(f"tuner.space={{trainer.batch_size: {{min: 4, max: 9, log: {log}}}}}")[
        "trainer.batch_size"
    ]
    values = [dimension.at(index / 1000) for index in range(1001)]
    assert values == sorted(values)
    assert set(values) == {4, 5, 6, 7, 8, 9}
    if log == "false":
        counts = [len(list(group)) for _, group in itertools.groupby(values)]
        assert max(counts) - min(counts) <= 2


def test_the_settings_of_the_tuner_do_not_depend_on_values_that_it_replaces():
    base = "tuner.space.model.cnn.dropout={min: 0, max: 0.5}"
    with_rate, other = (
        loading.load(overrides=[base], on_base=True),
        loading.load(overrides=[base, "trainer.label_smoothing=0.3"], on_base=True),
    )
    assert with_rate.tuner_settings() != other.tuner_settings()
    changed = with_rate.with_setting("trainer.learning_rate", 0.05).with_setting("model.cnn.dropout", 0.4)
    assert changed.tuner_settings() == with_rate.tuner_settings()


def test_a_point_is_applied_and_checked():
    settings = load().trainer_settings()
    changed = search.apply(settings, {"trainer.batch_size": 7, "model.cnn.filters": [8, 16]})
    assert (changed.trainer.batch_size, changed.model.cnn.filters) == (7, (8, 16))
    assert changed.trainer.learning_rate == settings.trainer.learning_rate
    with pytest.raises(ValueError, match="muon needs convolutions"):
        search.apply(settings, {"model.cnn.batch_normalization": False})


def test_hyperband_needs_epochs_to_compare():
    with pytest.raises(ConfigError, match=r"set tuner.epochs to 3 or more, found 2"):
        load("tuner.algorithm=hyperband")
    assert load("tuner.algorithm=hyperband", "tuner.epochs=3").tuner.epochs == 3


def test_flips_are_not_tried_where_the_model_averages_mirror_images():
    config = load("export.views=6", "tuner.space.augmentation.flip=[true, false]")
    with pytest.raises(ValueError, match="views=6 shows the network mirror images"):
        search.apply(config.tuner_settings(), {"augmentation.flip": False})


def test_values_of_keras_tuner_are_decoded_without_its_own_names():
    values = {
        "trainer.optimizer": "adamw",
        "trainer.weight_decay": "null",
        "tuner/epochs": 3,
        "model.cnn.filters": "[8, 16]",
    }
    assert search.decode(values) == {
        "trainer.optimizer": "adamw",
        "trainer.weight_decay": None,
        "model.cnn.filters": [8, 16],
    }
    assert search.encode([None, 0.5, "x"]) == ["null", "0.5", "x"]


def test_points_of_a_space_are_listed_where_there_are_few():
    space = resolve(
        "tuner.space={trainer.batch_size: {min: 8, max: 9}, augmentation.flip: [true, false]}"
    ).values()
    assert [tuple(point.values()) for point in search.list_points([*space], most=4)] == [
        *((8, True), (8, False), (9, True), (9, False)),
    ]
    assert search.list_points([*space], most=3) is None
    assert search.list_points([*resolve().values()], most=1000) is None
