"""Writes the exported model in other formats, each only if it agrees with the SavedModel.

All formats compute the network on one view of an image. Their only input `images` is what `pixels` of the
exported model returns: uint8 [batch, height, width, 3], upright RGB images of the network's size. Their only
output `probabilities` has the shape [batch, classes]; it is float32, or, of `tflite_int8`, uint8 in units of
1/256. TensorFlow Lite's models take one image at a time, since a phone's accelerators need shapes that are
known; ONNX models take any number.
"""
