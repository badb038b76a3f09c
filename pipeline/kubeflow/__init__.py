"""Compiles the pipeline for Vertex AI Pipelines and Kubeflow Pipelines, and submits it."""
