# The image of the steps on Vertex and Kubeflow, and of Beam's workers on Dataflow, Flink and Spark: the locked
# packages and this project's code.
#
#   docker build -t REGISTRY/pipeline:$(python kubeflow_runner.py image-tag) .
#
# For GPUs: --build-arg UV_SYNC_ARGS="--extra gpu", several GB more.

FROM python:3.10-slim-bookworm AS packages
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY pyproject.toml uv.lock ./
ARG UV_SYNC_ARGS=""
# Compiled once here, importing TFX takes a third of the time in every step.
# hadolint ignore=SC2086
RUN uv sync --locked --no-dev --group image --no-cache --compile-bytecode ${UV_SYNC_ARGS}

# The version of apache-beam in uv.lock: what starts a worker and the worker go together.
FROM apache/beam_python3.10_sdk:2.59.0 AS beam

FROM python:3.10-slim-bookworm
RUN useradd --create-home --uid 1000 pipeline
COPY --from=packages /opt/venv /opt/venv
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY components /opt/pipeline/components
COPY datasets /opt/pipeline/datasets
COPY models /opt/pipeline/models
COPY pipeline /opt/pipeline/pipeline
COPY settings /opt/pipeline/settings
# TensorFlow leaves oneDNN off on some CPUs, where training takes up to twice as long without. Beam's workers
# would make an environment of their own, which has none of the packages.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/pipeline \
    TF_ENABLE_ONEDNN_OPTS=1 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
USER 1000
WORKDIR /home/pipeline
# Of Beam's workers; a step has its own command.
ENTRYPOINT ["/opt/apache/beam/boot"]
