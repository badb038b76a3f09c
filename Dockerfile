# The image of the steps on Vertex and Kubeflow, and of Beam's workers on Dataflow, Flink and Spark. It contains
# the locked packages and this project's code.
#
#   docker build -t REGISTRY/pipeline:$(python kubeflow_runner.py image-tag) \
#     --build-arg GIT_COMMIT=$(git describe --always --dirty --abbrev=40 --exclude='*') .
#
# For GPUs, add --build-arg UV_SYNC_ARGS="--extra gpu", which makes the image several GB larger.

FROM python:3.13-slim-trixie AS packages
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY pyproject.toml uv.lock ./
ARG UV_SYNC_ARGS=""
# With bytecode compiled once here, every step imports TFX in a third of the time.
# hadolint ignore=SC2086
RUN uv sync --locked --no-dev --group image --no-cache --compile-bytecode ${UV_SYNC_ARGS}

# The same version as apache-beam in uv.lock, because a worker and the program that starts it must match.
FROM apache/beam_python3.13_sdk:2.77.0 AS beam

FROM python:3.13-slim-trixie
RUN useradd --create-home --uid 1000 pipeline
COPY --from=packages /opt/venv /opt/venv
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY components /opt/pipeline/components
COPY datasets /opt/pipeline/datasets
COPY models /opt/pipeline/models
COPY pipeline /opt/pipeline/pipeline
COPY settings /opt/pipeline/settings
# On some CPUs TensorFlow switches oneDNN off by default, and training then takes up to twice as long. The last
# variable keeps Beam's workers in the environment above: one that they create themselves has no packages.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/pipeline \
    TF_ENABLE_ONEDNN_OPTS=1 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
# The steps note it in ML Metadata; it is no part of the image's tag.
ARG GIT_COMMIT=""
ENV PIPELINE_GIT_COMMIT=${GIT_COMMIT}
USER 1000
WORKDIR /home/pipeline
# The entry point of Beam's workers; each step overrides it with its own command.
ENTRYPOINT ["/opt/apache/beam/boot"]
