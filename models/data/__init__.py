"""Reads examples, and turns them into batches of images for training."""
