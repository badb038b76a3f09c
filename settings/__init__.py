"""What can be set: typed, frozen and checked sections, which load without TensorFlow or TFX."""
