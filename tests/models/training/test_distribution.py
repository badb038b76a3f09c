import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from models.data import images
from models.data.batches import training_batches, validation_batches
from models.training import distribution, loop
from settings.training import AugmentationConfig
from tests.models import cluster, samples, worker

BATCH_SIZE = 16
# Batch normalisation, but no augmentation. Early stopping ends the training before the last epoch.
SETTINGS = samples.small_settings(
    trainer={
        "epochs": 12,
        "batch_size": BATCH_SIZE,
        # SGD, because Adam's steps hardly depend on the scale of the gradient and would hide a wrong one.
        "optimizer": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 0.3,
        "schedule": "constant",
        "early_stopping_patience": 1,
    }
)
# Number of examples in each file. Of the three training files, two workers read one each and share the third,
# so that they have different numbers of images; the last batch is not full.
FILES = {"train": (40, 20, 11), "val": (12, 17)}


@pytest.fixture(scope="module")
def data(raw_examples, tmp_path_factory):
    """A folder with the raw examples in several files, the schema and the transform graph."""
    folder = tmp_path_factory.mktemp("cluster")
    for split, sizes in FILES.items():
        (folder / split).mkdir()
        records = list(tf.data.TFRecordDataset(tf.io.gfile.glob(raw_examples.pattern(split)), "GZIP"))
        for name, size in zip("abc", sizes, strict=False):
            options = tf.io.TFRecordOptions(compression_type="GZIP")
            with tf.io.TFRecordWriter(str(folder / split / f"{name}.gz"), options) as writer:
                for record in records[:size]:
                    writer.write(record.numpy())
            del records[:size]
    (folder / "schema.pbtxt").symlink_to(raw_examples.schema_path)
    (folder / "transform").symlink_to(raw_examples.transform_path)
    return folder


@pytest.fixture
def read(data, raw_examples, transform_output):
    def read_part(split, index, count):
        return images.read(
            [f"{data}/{split}/*"],
            raw_examples.factory,
            raw_examples.schema,
            transform_output,
            cache_mebibytes=1,
            part=(index, count),
        )

    return read_part


def _digests(*parts):
    return sorted(pixels.tobytes() for images in parts for pixels in images.pixels)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_parts_of_a_split_have_each_example_once(read, count):
    parts = [read("train", index, count) for index in range(count)]
    assert _digests(*parts) == _digests(read("train", 0, 1))
    if count == 3:
        assert [len(part) for part in parts] == [40, 20, 11]  # one file for each worker
    if count > 3:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1  # every `count`-th example


def test_a_part_without_examples_raises_a_clear_error(read):
    with pytest.raises(ValueError, match=r"no examples for worker 100 of 100 .*at least as many"):
        read("train", 99, 100)


@pytest.mark.parametrize(
    ("counts", "batch_size"), [((46, 25), 16), ((8, 8, 8), 6), ((1, 99), 10), ((3, 3), 5), ((7,), 3)]
)
def test_the_shares_of_all_workers_add_up_to_the_global_batches(counts, batch_size):
    shares = [distribution.share(counts, batch_size, index) for index in range(len(counts))]
    assert tuple(sum(share) for share in shares) == counts
    total = sum(counts)
    full, rest = divmod(total, batch_size)
    assert np.sum(shares, axis=0).tolist() == [batch_size] * full + [rest] * bool(rest)
    for share, count in zip(shares, counts, strict=True):
        np.testing.assert_allclose(share[:full], count / total * batch_size, atol=1)


def test_batches_have_the_given_sizes_and_each_image_once_an_epoch():
    images = samples.colored(30, 8)
    images.pixels[:, 0, 0, 0] = np.arange(30)
    no_augmentation = AugmentationConfig(rotation_degrees=0.0, shift_fraction=0.0, flip=False)
    sizes = [7, 0, 13, 10]
    batches = training_batches(images, sizes, no_augmentation, seed=3)
    handed_out = [np.round(pixels[:, 0, 0, 0] * 255) for pixels, _ in batches.take(8)]
    epochs = [handed_out[:4], handed_out[4:]]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == sizes
        assert sorted(np.concatenate(epoch)) == list(range(30))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    # The order of the images does not depend on the batch sizes.
    whole_epoch = next(iter(training_batches(images, [30], no_augmentation, seed=3)))[0]
    np.testing.assert_array_equal(np.round(whole_epoch[:, 0, 0, 0] * 255), np.concatenate(epochs[0]))
    assert [len(labels) for _, labels in validation_batches(images, sizes).take(4)] == sizes


@pytest.fixture(scope="module")
def two_workers(data):
    """Runs one normal and one diverging training on two workers; returns their output."""
    settings = SETTINGS.model_dump(mode="json")
    diverging = {**settings, "trainer": {**settings["trainer"], "learning_rate": 1e30}}
    jobs = json.dumps([(settings, "trained"), (diverging, "diverged")])
    processes = cluster.run(2, worker.__file__, str(data), jobs)
    assert [process.returncode for process in processes] == [0, 0], [
        process.output[-3000:] for process in processes
    ]
    return processes


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one_worker_on_the_same_global_batches(
    data, read, two_workers, monkeypatch, tmp_path
):
    written = json.loads((data / "trained-0/model_run/history.json").read_text())

    # Train on one worker, with global batches that concatenate the batches of the two workers.
    workers = [distribution.Workers(index=index, count=2) for index in range(2)]
    parts = [read("train", index, 2) for index in range(2)]
    counts = [len(part) for part in parts]
    assert counts == [46, 25]

    def batches(data, batch_sizes, augmentation, seed, *_):
        worker_batches = [
            training_batches(
                part, distribution.share(counts, BATCH_SIZE, w.index), augmentation, w.seed(seed)
            )
            for part, w in zip(parts, workers, strict=True)
        ]
        return tf.data.Dataset.zip(tuple(worker_batches)).map(
            lambda *pairs: tuple(tf.concat(arrays, 0) for arrays in zip(*pairs, strict=True))
        )

    monkeypatch.setattr(loop, "training_batches", batches)
    _, history = loop.train(SETTINGS, read("train", 0, 1), read("val", 0, 1), 3, str(tmp_path))

    assert 2 <= len(history.epochs) < SETTINGS.trainer.epochs  # stopped early
    assert len(written["epochs"]) == len(history.epochs)
    for epoch, written_epoch in zip(history.epochs, written["epochs"], strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert written_epoch[name] == pytest.approx(getattr(epoch, name), rel=1e-4), (epoch.epoch, name)


@pytest.mark.slow
def test_both_workers_log_the_same_and_only_the_chief_writes(data, two_workers):
    lines = [
        [line.partition("training: ")[2] for line in process.output.splitlines() if "val_loss" in line]
        for process in two_workers
    ]
    assert lines[0]
    metrics = [[line.partition(" s, ")[2] for line in worker_lines] for worker_lines in lines]
    assert metrics[0] == metrics[1]
    for process in two_workers:
        assert "stopped early" in process.output
        assert "TrainingDivergedError: training diverged: loss is" in process.output
    run = data / "trained-0" / "model_run"
    names = {path.name for path in run.iterdir()}
    assert names == {"history.json", "hyperparameters.json", "environment.json", "tensorboard"}
    assert json.loads((run / "environment.json").read_text())["workers"] == 2
    assert not (data / "trained-1").exists()
    assert not (data / "diverged-1").exists()


@pytest.mark.slow
def test_the_served_model_of_two_workers_has_the_validation_accuracy(data, two_workers):
    history = json.loads((data / "trained-0/model_run/history.json").read_text())
    loaded = tf.saved_model.load(str(data / "trained-0/model/Format-Serving"))
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(f"{data}/val/*"), "GZIP").batch(100)
    examples = next(iter(records))
    labels = tf.io.parse_example(examples, {"label": tf.io.FixedLenFeature([], tf.int64)})["label"]
    accuracy = np.mean(loaded.signatures["serving_default"](examples=examples)["class_id"] == labels)
    best = history["epochs"][history["best"]]
    assert accuracy == pytest.approx(best["val_accuracy"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_when_a_worker_fails_the_other_one_raises_worker_lost(failing):
    code = f"""
import os
from models.training import distribution

workers = distribution.join()
try:
    with workers.failing_together():
        workers.wait()
        if workers.index == {failing}:
            os._exit(7)
        workers.wait()  # raises, unless the first call already has
except distribution.WorkerLostError as error:
    print(f"WorkerLostError: {{error}}")
    os._exit(8)
"""
    processes = cluster.run(2, "-c", code)
    assert processes[failing].returncode == 7
    other = processes[1 - failing]
    assert other.returncode == 8, other.output[-3000:]
    assert f"WorkerLostError: worker {2 - failing} of 2 stops, because another worker has" in other.output


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{}",
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_single_task_is_this_process_alone(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    workers = distribution.join()
    assert (workers.index, workers.count, workers.replicas, workers.chief) == (0, 1, 1, True)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "cannot be read; expected JSON"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "cannot be read; expected JSON with `cluster`"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "worker 1; expected"),
        (
            '{"cluster": {"chief": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            "parameter servers and evaluators are not supported",
        ),
    ],
)
def test_an_invalid_tf_config_is_refused(monkeypatch, value, message):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ValueError, match=message):
        distribution.join()


def test_workers_that_never_start_raise_worker_lost(monkeypatch):
    def time_out():
        raise tf.errors.DeadlineExceededError(None, None, "Barrier timed out")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", time_out)
    monkeypatch.setenv(
        "TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    )
    with pytest.raises(
        distribution.WorkerLostError, match=r"worker 2 of 2 has timed out .* Barrier timed out"
    ):
        distribution.join()


REPLICAS = """
import sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from models.training import distribution, loop
from settings.training import TrainingSettings

sys.path.insert(0, "tests/models")
import samples

settings = TrainingSettings.model_validate_json(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
images = samples.colored(41, 16), samples.colored(15, 16, seed=1)
for workers in (distribution.Workers(strategy), distribution.Workers()):
    _, history = loop.train(settings, *images, 3, None, workers=workers)
    print("losses", *(f"{loss}" for epoch in history.epochs for loss in (epoch.loss, epoch.val_loss)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mirrored_filters", [False, True])
def test_two_replicas_in_one_process_have_the_losses_of_one(mirrored_filters):
    # All images are in one batch, so that their order does not matter.
    trainer = SETTINGS.trainer.model_copy(update={"batch_size": 64})
    network = SETTINGS.model.cnn.model_copy(update={"mirrored_filters": mirrored_filters})
    settings = SETTINGS.model_copy(
        update={"trainer": trainer, "model": SETTINGS.model.model_copy(update={"cnn": network})}
    )
    (process,) = cluster.run_all([([sys.executable, "-c", REPLICAS, settings.model_dump_json()], {})])
    assert process.returncode == 0, process.output[-3000:]
    two_replica_losses, one_replica_losses = (
        [float(loss) for loss in line.split()[1:]]
        for line in process.output.splitlines()
        if line.startswith("losses")
    )
    assert len(one_replica_losses) == 2 * trainer.epochs
    assert two_replica_losses == pytest.approx(one_replica_losses, rel=1e-4)
