"""Answers image files with a pushed model: `python -m serving.predict`."""
