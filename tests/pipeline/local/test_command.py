import errno
import io

import pytest
from rich.console import Console

from pipeline.local import abandoned, command
from settings import loading
from settings.base import ConfigError


def test_an_endpoint_on_vertex_is_refused(tmp_path):
    settings = loading.load(overrides=["pusher.target=vertex_endpoint"], values={"root": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"a local run cannot deploy to Vertex, .* pusher\.target=folder"):
        command.check(settings, None, None)


def test_a_search_is_announced_with_its_settings_and_trials():
    overrides = ["tuner.space.model.cnn.dropout={min: 0, max: 0.5}", "trainer.batch_size=64"]
    config = loading.load(overrides=overrides, on_base=True)
    assert command._describe_search(config, 45_000) == (
        "The Tuner chooses trainer.learning_rate from 0.1 to 0.2 and model.cnn.dropout from 0 to 0.5, and "
        "overrides what presets set there: up to 3 trials of up to 2 epochs on 8,000 images. --set fixes a "
        "value instead; --no-tune leaves the search out."
    )
    assert "on 500 images" in command._describe_search(config, 500)


def test_no_more_trials_are_announced_than_the_space_has_points():
    overrides = ["tuner.space={trainer.batch_size: [32, 64]}", "tuner.trials=12", "tuner.epochs=1"]
    announced = command._describe_search(loading.load(overrides=overrides, on_base=True), 500)
    assert "up to 2 trials of up to 1 epoch on 500 images" in announced
    overrides += ["tuner.algorithm=hyperband", "tuner.epochs=3"]
    assert "up to 12 trials" in command._describe_search(loading.load(overrides=overrides, on_base=True), 500)


def test_pictures_of_the_augmentation_name_what_the_tuner_replaces():
    overrides = ["tuner.space={augmentation.flip: [true, false], trainer.batch_size: [32, 64]}"]
    told = command._describe_searched_augmentation(loading.load(overrides=overrides, on_base=True))
    assert told and told.endswith(" are drawn with augmentation.flip=true")
    overrides.append("tuner.enabled=false")
    config = loading.load(overrides=overrides, on_base=True)
    assert command._describe_searched_augmentation(config) is None


def test_too_many_trials_at_a_time_are_refused_before_the_dataset_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(command.catalog, "open_dataset", lambda *_: pytest.fail("the dataset was opened"))
    config = loading.load(overrides=["tuner.parallel=1000"], on_base=True)
    with pytest.raises(ConfigError, match=r"tuner.parallel=1000: "):
        command._open(config, tmp_path)


def test_models_may_wait(tmp_path):
    settings = loading.load(overrides=["pusher.promote=manual"], values={"root": str(tmp_path)})
    command.check(settings, None, None)


def test_a_database_that_cannot_be_created_is_an_error_in_one_line(tmp_path):
    database = tmp_path / "metadata.sqlite"
    database.mkdir()
    with pytest.raises(ConfigError) as error:
        command._forget_missing(database, "shapes", Console(file=io.StringIO()))
    told = str(error.value)
    assert told.startswith(f"{database}: expected the database of ML Metadata, found something that cannot")
    assert "\n" not in told


def test_what_cannot_be_settled_on_a_full_disk_does_not_end_the_run_before_its_summary(tmp_path, monkeypatch):
    tried = []

    def settle(root):
        tried.append(root)
        raise OSError(errno.ENOSPC, "No space left on device", "serving/cats/.2.unrecorded")

    monkeypatch.setattr(abandoned, "settle", settle)
    command._settle_this_run(tmp_path)
    assert tried == [tmp_path]
