"""Names of the features of an example, before and after Transform."""

# In a tf.train.Example, as TFDS writes CIFAR-10: encoded PNG or JPEG bytes, an int64, and optional bytes.
IMAGE = "image"
LABEL = "label"
ID = "id"
