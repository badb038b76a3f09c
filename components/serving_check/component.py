"""ServingCheck as a TFX component."""

import posixpath

from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import artifacts
from components.serving_check import check
from datasets import directory

# Number of images in the request, which are classified together: even large ones then need little memory.
_REQUESTS = 8


@tfx.dsl.components.component
def ServingCheck(  # noqa: N802 - the function's name is the component's type name.
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.InfraBlessing],
    split: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Blesses a model whose signatures all answer correctly in a process without this project's code.

    Args:
      model: the exported model.
      examples: examples whose images are sent to the model.
      schema: schema that holds the expected class names.
      blessing: artifact that receives the custom property `blessed`, and `serving_check.json` with the answer
        of the serving client.
      split: name of the split of `examples` to use.
      source_digest: digest of this component's code, so that changed code does not get cached results.
    """
    del source_digest
    class_names = directory.class_names(artifacts.read_schema(schema))
    request = check.read_request(artifacts.example_files(examples, split), class_names, _REQUESTS)
    answer = check.ask(path_utils.serving_model_path(model.uri), request)
    artifacts.write_json(blessing, check.ANSWER, answer)
    blessed = not answer["problems"]
    blessing.set_int_custom_property("blessed", int(blessed))
    # Empty marker file, for people and for tools that do not read ML Metadata.
    verdict = "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED"
    with fileio.open(posixpath.join(blessing.uri, verdict), "w") as file:
        file.write("")  # TensorFlow creates the file only when something is written.
