"""Custom TFX components: the work of each is in plain functions that know nothing of TFX."""

from typing import Any

# The type of the reports in ML Metadata. In a container of Vertex or Kubeflow, TFX takes the name of a custom
# type for the class to be imported, and only lets it be in a top-level module: in this one.
MODEL_REPORT = "components.ModelReport"


def __getattr__(name: str) -> Any:
    """Finds the artifact types; imported only then, as TFX takes long to load."""
    if name in ("DataGateReport", "ModelReport"):
        from components import artifacts  # noqa: PLC0415

        return getattr(artifacts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
