"""ServingCheck as a TFX component."""

import posixpath

from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import artifacts
from components.serving_check import check, pushed_model
from components.serving_check.formats import writing
from datasets import directory
from settings.export import ExportConfig
from settings.serving_check import ServingCheckConfig

# Number of images in the request, which are classified together: even large ones then need little memory.
_REQUESTS = 8
# Custom property by which TFX's Pusher knows that the blessing holds a model.
_HAS_MODEL = "has_model"


@tfx.dsl.components.component
def ServingCheck(  # noqa: N802 - the function's name is the component's type name.
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    schema: tfx.dsl.components.InputArtifact[standard_artifacts.Schema],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.InfraBlessing],
    split: tfx.dsl.components.Parameter[str],
    limits: tfx.dsl.components.Parameter[str],
    export: tfx.dsl.components.Parameter[str],
    source_digest: tfx.dsl.components.Parameter[str],
) -> None:
    """Blesses a model whose signatures all answer correctly in a process without this project's code.

    Args:
      model: the exported model.
      examples: examples whose images are sent to the model.
      schema: schema that holds the expected class names.
      blessing: artifact that receives the custom properties `blessed` and `has_model`; `serving_check.json`
        with the answer of the serving client; and, of a blessed model, the model that is pushed, where TFX's
        InfraValidator puts it, see `pushed_model`.
      split: name of the split of `examples` to use.
      limits: the settings of `settings.serving_check.ServingCheckConfig` as a JSON object.
      export: the settings of `settings.export.ExportConfig` as a JSON object; the formats in which the pushed
        model is written, too.
      source_digest: digest of this component's code, so that changed code does not get cached results.
    """
    del source_digest
    class_names = directory.class_names(artifacts.read_schema(schema))
    files = artifacts.example_files(examples, split)
    request = check.read_request(files, class_names, _REQUESTS)
    exported = path_utils.serving_model_path(model.uri)
    answer = check.ask(exported, request, ServingCheckConfig.model_validate_json(limits))
    artifacts.write_json(blessing, check.ANSWER, answer)
    blessed = not answer["problems"]
    if blessed:
        pushed = path_utils.stamped_model_path(blessing.uri)
        pushed_model.write(exported, pushed, files, class_names, answer)
        if (config := ExportConfig.model_validate_json(export)).formats:
            train_files = artifacts.example_files(examples, "train")
            writing.write(exported, pushed, config, class_names, files, train_files)
    blessing.set_int_custom_property("blessed", int(blessed))
    blessing.set_int_custom_property(_HAS_MODEL, int(blessed))
    # Empty marker file, for people and for tools that do not read ML Metadata.
    verdict = "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED"
    with fileio.open(posixpath.join(blessing.uri, verdict), "w") as file:
        file.write("")  # TensorFlow creates the file only when something is written.
