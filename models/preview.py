"""Gives training images as the network sees them in the first epochs."""

from __future__ import annotations

import numpy as np

from models.data.batches import augmented_view, training_batches
from models.data.crops import Crops
from models.data.images import Images
from models.training import loop
from settings.model import PretrainedConfig
from settings.training import TrainingSettings


def augment(images: Images, settings: TrainingSettings, epochs: int) -> list[np.ndarray]:
    """Augments images as the first phase of training does, with the same code.

    An image gets the changes of its position in a split. These images are not the whole split, so that the
    changes are other ones than in the training, drawn in the same way.

    Args:
      images: some training images, in the size of the network's input.
      settings: settings of the training.
      epochs: number of epochs.

    Returns:
      For each of the first epochs, but for no more than the phase has, float32 [images, height, width, 3] in
      [0, 1], in the order of `images`. Progressive crops are smaller than `images`.
    """
    stage, phase = loop.phases(settings)[0]
    count, numbers = len(images), range(min(epochs, phase.epochs))
    if stage.on_features:
        # Each epoch uses the features of the next of several views.
        network = settings.model.network
        assert isinstance(network, PretrainedConfig)
        views = [
            augmented_view(
                images, count, settings.augmentation, settings.seed, number % network.feature_views
            )
            for number in numbers
        ]
        return [pixels for view in views for pixels, _ in view.as_numpy_iterator()]
    # Positions in place of the labels, to undo the shuffling.
    numbered = Images(images.pixels, np.arange(count))
    crops = Crops(settings.trainer.crop_scales, phase.epochs)
    batches = training_batches(
        numbered, [count], settings.augmentation, settings.seed, crops=crops if crops.smaller else None
    )
    return [
        pixels[np.argsort(positions)] for pixels, positions in batches.take(len(numbers)).as_numpy_iterator()
    ]
