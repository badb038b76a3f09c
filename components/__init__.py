"""Custom TFX components: the work of each is in plain functions that know nothing of TFX."""
