"""Readers and writers of dataset directories: TFRecord shards of each split, a schema and class names."""
