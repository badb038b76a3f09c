"""The settings as typed, frozen and validated sections; importing them loads neither TensorFlow nor TFX."""
