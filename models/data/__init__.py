"""From examples to batches of images."""
