"""Whatever writes a dataset directory: TFRecord shards of train, val and test, a schema, class names."""
