"""Training on several workers or GPUs: joins the workers, splits global batches, averages the loss."""

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
# The errors that TensorFlow raises when another worker is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class WorkerLostError(RuntimeError):
    """Another worker has failed, or cannot be reached."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train one network together; by default this process alone.

    Attributes:
      strategy: TensorFlow's strategy, which keeps the replicas of the network in sync. There is one replica
        on each GPU of each worker.
      index: number of this process, from 0; number 0 is the chief.
      count: number of processes.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process is the chief, the only one that writes files."""
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Number of replicas of the network, over all workers."""
        return self.strategy.num_replicas_in_sync

    def seed(self, seed: int) -> int:
        """Returns the random seed of this worker: `seed` on the chief, and different ones on the others."""
        return seed if self.chief else int(np.random.SeedSequence([seed, self.index]).generate_state(1)[0])

    def share(self, images: int, batch_size: int) -> tuple[int, list[int]]:
        """Plans the global batches together with the other workers; every worker has to call it.

        Args:
          images: number of images of this worker.
          batch_size: number of images in a global batch.

        Returns:
          The number of images of all workers, and the sizes of this worker's batches: for each global batch
          in order, one size for each replica of this worker. A size may be 0.

        Raises:
          ValueError: a worker has no images.
        """
        counts = self._gather(images)
        if not all(counts):
            raise ValueError(
                f"{counts.count(0)} of {self.count} workers have no images: each split needs at least as "
                "many images as there are workers"
            )
        local = self.replicas // self.count
        return sum(counts), [
            size // local + (replica < size % local)
            for size in share(counts, batch_size, self.index)
            for replica in range(local)
        ]

    def distribute(self, create_batches: Callable[[], tf.data.Dataset]) -> Any:
        """Distributes this worker's batches over its replicas.

        Args:
          create_batches: creates the dataset of this worker's batches, with the sizes that `share` returned.
            The dataset has to be endless: otherwise all workers would have to agree before each step whether
            there is a next batch.

        Returns:
          What Keras iterates over: with one replica the dataset itself, else a distributed dataset.
        """
        if self.replicas == 1:
            return create_batches()
        return self.strategy.distribute_datasets_from_function(lambda _: create_batches())

    def average(self, values: np.ndarray, weight: float = 1.0) -> np.ndarray:
        """Returns the weighted mean of the workers' arrays; every worker has to call it.

        Args:
          values: this worker's array, of the same shape on all workers.
          weight: weight of this worker's array.
        """
        if self.count == 1:
            return values
        return self._reduce("MEAN", values * weight) / self._reduce("MEAN", np.array(weight, float))

    def sum(self, number: int) -> int:
        """Returns the sum of the workers' numbers; every worker has to call it."""
        return sum(self._gather(number))

    def wait(self) -> None:
        """Waits until every worker has called it."""
        self._gather(0)

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Turns the errors that TensorFlow raises when another worker fails into a WorkerLostError.

        TensorFlow notices some ten seconds after a process has ended, by missing heartbeats and connection
        timeouts; it then aborts the operations that wait for that process.

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
                f"worker {self.index + 1} of {self.count} stops, because another worker has failed or cannot "
                "be reached; look for the cause in that worker's log. TensorFlow reports: "
                f"{reported.strip()[:500]}"
            ) from None

    def _gather(self, number: int) -> list[int]:
        """Returns the workers' numbers, ordered by worker."""
        if self.count == 1:
            return [number]
        numbers = np.zeros(self.count, np.int64)
        numbers[self.index] = number
        # Each replica of a worker adds the worker's number.
        return (self._reduce("SUM", numbers) // (self.replicas // self.count)).tolist()

    def _reduce(self, operation: str, values: np.ndarray) -> np.ndarray:
        """Reduces the arrays of all replicas, by "SUM" or "MEAN"."""

        @tf.function(autograph=False)
        def reduce() -> Any:
            return self.strategy.run(
                lambda: tf.distribute.get_replica_context().all_reduce(operation, values)
            )

        return self.strategy.experimental_local_results(reduce())[0].numpy()


def join() -> Workers:
    """Joins the workers that the environment variable TF_CONFIG names.

    Call it before any other use of TensorFlow. Vertex's custom jobs and Kubeflow's TFJob set the variable.
    The chief is the task `chief`, or worker 0 if there is no such task. The function returns once all workers
    have started; TensorFlow waits for up to an hour.

    Returns:
      The workers, or this process alone if TF_CONFIG is not set or names a single task. The strategy covers
      all GPUs of this machine.

    Raises:
      ValueError: TF_CONFIG cannot be read, or has tasks other than `chief` and `worker`.
      WorkerLostError: the other workers have not started in time.
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
            f"TF_CONFIG has the tasks {cluster}, and this process is {task} {index}; expected one of these "
            "tasks, and only `chief` and `worker`: parameter servers and evaluators are not supported"
        )
    if sum(cluster.values()) > 1:
        number = (cluster.get("chief", 0) if task == "worker" else 0) + index
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except _LOST as error:
            raise WorkerLostError(
                f"worker {number + 1} of {sum(cluster.values())} has timed out waiting for the others; start "
                f"all workers that TF_CONFIG names. TensorFlow reports: {error.message.strip()[:500]}"
            ) from None
        return Workers(strategy, number, sum(cluster.values()))
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return Workers(tf.distribute.MirroredStrategy())
    return Workers()


def share(counts: Sequence[int], batch_size: int, index: int) -> list[int]:
    """Returns how many images one worker contributes to each global batch.

    Each worker's images are spread evenly over the epoch, so that all workers take part in the last batch.

    Args:
      counts: number of images of each worker.
      batch_size: number of images in a global batch; the last one has the remainder.
      index: number of the worker, from 0.
    """
    positions = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    workers = np.repeat(np.arange(len(counts)), counts)[np.argsort(positions, kind="stable")]
    return np.add.reduceat(workers == index, np.arange(0, len(workers), batch_size), dtype=int).tolist()


def synchronize(model: keras.Model) -> None:
    """Makes batch normalisation use the statistics of the global batch, as a single worker would.

    With the statistics of their own images, the replicas would have different running averages and would
    validate different networks.

    Args:
      model: the network, which is changed in place, nested models included.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            synchronize(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


class Network(keras.Model):
    """A network whose loss is the mean over the global batch, however many replicas share the batch.

    Keras' loss is the mean of the replicas' means, which differs if their parts of the batch differ in size.

    Compile the network with a `keras.losses.Loss`. With several replicas, create it outside the strategy's
    scope, from layers that were created inside, and call `fit` inside the scope. For a network created
    inside, Keras averages a batch of images over the workers and discards the result, which fails if the
    workers' parts of the batch differ in size.
    """

    def train_step(self, data: Any) -> dict[str, Any]:
        """Updates the weights on one batch; returns the metrics."""
        images, labels = data
        local = tf.cast(tf.shape(labels)[0], tf.float32)
        count = tf.distribute.get_replica_context().all_reduce("SUM", local)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            losses = self.loss.call(labels, logits)  # [batch], not yet reduced
            loss = self.optimizer.scale_loss(tf.reduce_sum(losses) / count)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return self._update_metrics(images, labels, logits, losses)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch; returns the metrics."""
        images, labels = data
        logits = self(images, training=False)
        return self._update_metrics(images, labels, logits, self.loss.call(labels, logits))

    def _update_metrics(self, images: Any, labels: Any, logits: Any, losses: Any) -> dict[str, Any]:
        next(metric for metric in self.metrics if metric.name == "loss").update_state(losses)
        values = self.compute_metrics(images, labels, logits)
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # With this strategy Keras averages metrics over their first axis, which scalars do not have.
            return {name: value[tf.newaxis] for name, value in values.items()}
        return values
