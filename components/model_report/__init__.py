"""Writes the report on a trained model: metrics by class, figures, predictions and a page that shows them.

README.md in this folder describes the files of a report and the keys of `metrics.json`.
"""
