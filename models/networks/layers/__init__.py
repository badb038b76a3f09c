"""Layers that Keras does not have, or not as fast."""
