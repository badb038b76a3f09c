"""Training: from arrays of images to a trained network."""
