"""Custom TFX components. Their work is done by plain functions that do not depend on TFX."""

from typing import Any

# Type name of the reports in ML Metadata. In a container on Vertex or Kubeflow, TFX imports the class of a
# custom artifact type by its type name, which works for a top-level module only. `__getattr__` therefore
# provides the artifact types as attributes of this package.
MODEL_REPORT = "components.ModelReport"


def __getattr__(name: str) -> Any:
    """Returns an artifact type of `components.artifacts`, which is imported on demand since TFX loads slowly.

    Args:
      name: name of the missing attribute.

    Returns:
      The artifact type.

    Raises:
      AttributeError: there is no artifact type of this name.
    """
    if name in ("DatasetDirectory", "DataGateReport", "ModelReport"):
        from components import artifacts  # noqa: PLC0415

        return getattr(artifacts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
