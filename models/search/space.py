"""Translates a space of settings into KerasTuner's."""

from __future__ import annotations

from collections.abc import Sequence

import keras_tuner

from settings.search import Dimension, encode


def hyperparameters(dimensions: Sequence[Dimension]) -> keras_tuner.HyperParameters:
    """Returns KerasTuner's form of a space.

    Args:
      dimensions: the searched settings. One that has a single value becomes a `Fixed`.
    """
    space = keras_tuner.HyperParameters()
    for dimension in dimensions:
        key, sampling = dimension.key, "log" if dimension.log else "linear"
        if dimension.is_fixed:
            space.Fixed(key, encode([dimension.at(0.0)])[0])
        elif dimension.values is not None and set(map(type, dimension.values)) == {bool}:
            # A Choice would turn flags into the numbers 0 and 1.
            space.Boolean(key)
        elif dimension.values is not None:
            # A range with a step is a list here, too: KerasTuner's own steps leave out the last value where
            # rounding errors keep them from reaching it, such as 0.5 in steps of 0.1.
            space.Choice(key, encode(dimension.values))
        elif dimension.integer:
            space.Int(key, int(dimension.low), int(dimension.high), sampling=sampling)
        else:
            space.Float(key, dimension.low, dimension.high, sampling=sampling)
    return space
