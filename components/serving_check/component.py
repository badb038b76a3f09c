"""ServingCheck as a TFX component."""

import posixpath

from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import artifacts
from components.serving_check import check
from datasets import directory

_REQUESTS = 32


@tfx.dsl.components.component
def ServingCheck(  # noqa: N802 - the function is the component's type name.
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.InfraBlessing],
    split: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Blesses a model that answers in a clean process, through every way to ask it.

    Args:
      model: the exported model.
      examples: where the images come from that it is asked about.
      schema: the class names that it must answer with.
      blessing: gets the custom property `blessed` and `serving_check.json` with what was found.
      split: of `examples`.
      source_digest: of this component's code, so that changed code is not answered from the cache.
    """
    del source_digest
    class_names = directory.class_names(artifacts.read_schema(schema))
    request = check.read_request(artifacts.example_files(examples, split), class_names, _REQUESTS)
    answer = check.ask(path_utils.serving_model_path(model.uri), request)
    artifacts.write_json(blessing, check.ANSWER, answer)
    blessed = not answer["problems"]
    blessing.set_int_custom_property("blessed", int(blessed))
    # Read by people and by tools that look at files only.
    verdict = "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED"
    with fileio.open(posixpath.join(blessing.uri, verdict), "w") as file:
        file.write("")  # TensorFlow makes no file where nothing is written.
