"""What a person wants to know of a model: metrics by class, confusion, curves, on one page."""
