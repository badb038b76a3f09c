"""Layers that Keras lacks, and faster versions of layers that Keras has."""
