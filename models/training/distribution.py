"""Training on several workers, or on several GPUs of one: who takes part, and one loss for all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_JOBS = ("chief", "worker")
# How TensorFlow tells of workers that have gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class WorkerLostError(RuntimeError):
    """Another worker has failed, or cannot be reached."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train one network together; by default this one alone.

    Attributes:
      strategy: how replicas of the network, one on each GPU of each worker, agree.
      index: of this process, from 0, which is the chief.
      count: of all processes.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Copies of the network, over all workers."""
        return self.strategy.num_replicas_in_sync

    def seed(self, seed: int) -> int:
        """Returns a seed for what this worker draws: another one on each, and the given one on the chief."""
        return seed if self.chief else int(np.random.SeedSequence([seed, self.index]).generate_state(1)[0])

    def share(self, images: int, batch_size: int) -> tuple[int, list[int]]:
        """Agrees on how each global batch is put together; every worker has to call it.

        Args:
          images: that this worker has.
          batch_size: of the global batches.

        Returns:
          The images of all workers, and the sizes of this worker's batches: one for each of its replicas
          and each global batch, those of the first global batch first. Some may be 0.

        Raises:
          ValueError: a worker has no images.
        """
        counts = self._gather(images)
        if not all(counts):
            raise ValueError(
                f"{counts.count(0)} of {self.count} workers have no images: there have to be at least as "
                "many in each split as there are workers"
            )
        local = self.replicas // self.count
        return sum(counts), [
            size // local + (replica < size % local)
            for size in share(counts, batch_size, self.index)
            for replica in range(local)
        ]

    def distribute(self, make: Callable[[], tf.data.Dataset]) -> Any:
        """Returns what Keras iterates over; `make` gives this worker's batches, sized by `share`.

        Those have no end: all workers would have to ask each other before each step whether there is one.
        """
        if self.replicas == 1:
            return make()
        return self.strategy.distribute_datasets_from_function(lambda _: make())

    def average(self, values: np.ndarray, weight: float = 1.0) -> np.ndarray:
        """Returns the mean of the arrays that all workers have given, each with its weight."""
        if self.count == 1:
            return values
        return self._reduce("MEAN", values * weight) / self._reduce("MEAN", np.array(weight, float))

    def sum(self, number: int) -> int:
        """Returns the sum of the numbers that all workers have given."""
        return sum(self._gather(number))

    def wait(self) -> None:
        """Returns when all workers have come here."""
        self._gather(0)

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Says in a sentence that another worker has failed.

        TensorFlow finds out, some ten seconds after a process ended, from heartbeats, and from timeouts of
        connections; it then ends what waits for that process.

        Raises:
          WorkerLostError: another worker has failed or cannot be reached.
        """
        try:
            yield
        except _LOST as error:
            if self.count == 1:
                raise
            reported = next((line for line in error.message.splitlines() if "task" in line), error.message)
            raise WorkerLostError(
                f"worker {self.index + 1} of {self.count} stops, because another one has failed or cannot be "
                f"reached; the cause is in that one's log. TensorFlow reports: {reported.strip()[:500]}"
            ) from None

    def _gather(self, number: int) -> list[int]:
        """Returns the number that each worker has given, in the order of the workers."""
        if self.count == 1:
            return [number]
        mine = np.zeros(self.count, np.int64)
        mine[self.index] = number
        return (self._reduce("SUM", mine) // (self.replicas // self.count)).tolist()

    def _reduce(self, operation: str, values: np.ndarray) -> np.ndarray:
        @tf.function(autograph=False)
        def reduce() -> Any:
            return self.strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce(operation, values)
            )

        return self.strategy.experimental_local_results(reduce())[0].numpy()


def join() -> Workers:
    """Joins the workers that the environment variable TF_CONFIG names; call it before anything of TensorFlow.

    Vertex's custom jobs and Kubeflow's TFJob set that variable. The chief is the task `chief`, or else
    worker 0. Returns when all workers have started; TensorFlow waits for an hour.

    Returns:
      The workers, this process alone where TF_CONFIG is not set or names one only; with a strategy for all
      GPUs of this machine.

    Raises:
      ValueError: TF_CONFIG is not understood.
      WorkerLostError: the others have not started in time.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text or "{}")
        cluster = {job: len(hosts) for job, hosts in config.get("cluster", {}).items() if hosts}
        task, index = (config["task"]["type"], int(config["task"]["index"])) if cluster else ("chief", 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            "the environment variable TF_CONFIG cannot be read; expected JSON with `cluster` (`chief`, "
            f"`worker`: lists of host:port) and `task` (`type`, `index`), found {text!r}"
        ) from None
    if cluster and (not set(cluster) <= set(_JOBS) or index not in range(cluster.get(task, 0))):
        raise ValueError(
            f"TF_CONFIG has the tasks {cluster}, and this process is {task} {index}; expected one of them, "
            "and none but `chief` and `worker`: there are no parameter servers and no evaluators here"
        )
    if sum(cluster.values()) > 1:
        number = (cluster.get("chief", 0) if task == "worker" else 0) + index
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except _LOST as error:
            raise WorkerLostError(
                f"worker {number + 1} of {sum(cluster.values())} has waited for the others in vain; all that "
                f"TF_CONFIG names have to be started. TensorFlow reports: {error.message.strip()[:500]}"
            ) from None
        return Workers(strategy, number, sum(cluster.values()))
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return Workers(tf.distribute.MirroredStrategy())
    return Workers()


def share(counts: Sequence[int], batch_size: int, index: int) -> list[int]:
    """Returns how many images one worker adds to each global batch.

    Each worker's images are spread evenly over the epoch, so that all work on the last batch, too.

    Args:
      counts: images of each worker.
      batch_size: of all global batches but the last, which has what is left.
      index: of the worker.
    """
    positions = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    workers = np.repeat(np.arange(len(counts)), counts)[np.argsort(positions, kind="stable")]
    return np.add.reduceat(workers == index, np.arange(0, len(workers), batch_size), dtype=int).tolist()


def synchronize(model: keras.Model) -> None:
    """Makes batch normalisation take its statistics from the global batch, as a single worker would.

    From its own part each replica would get other running averages, and validate another network.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            synchronize(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


class Network(keras.Model):
    """A network whose loss is the mean over the global batch, however many replicas share it.

    Keras' own is the mean of the replicas' means, which is another one where their parts are not of one
    size. Compile with a `keras.losses.Loss`. Where there are several replicas: make it outside of the
    strategy's scope, of layers that were made inside, and fit it inside; made inside, Keras would average a
    batch of images over the workers and throw it away, which fails where their parts have other sizes.
    """

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = data
        local = tf.cast(tf.shape(labels)[0], tf.float32)
        count = tf.distribute.get_replica_context().all_reduce("SUM", local)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            losses = self.loss.call(labels, logits)  # before any reduction
            loss = self.optimizer.scale_loss(tf.reduce_sum(losses) / count)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return self._measure(images, labels, logits, losses)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = data
        logits = self(images, training=False)
        return self._measure(images, labels, logits, self.loss.call(labels, logits))

    def _measure(self, images: Any, labels: Any, logits: Any, losses: Any) -> dict[str, Any]:
        next(metric for metric in self.metrics if metric.name == "loss").update_state(losses)
        values = self.compute_metrics(images, labels, logits)
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages over the first axis there, and metrics have none.
            return {name: value[tf.newaxis] for name, value in values.items()}
        return values
