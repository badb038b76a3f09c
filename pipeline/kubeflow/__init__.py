"""The pipeline on Vertex and on open-source Kubeflow."""
