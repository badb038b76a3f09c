"""A stand-in for Vertex AI's services for models and endpoints, for Google's client in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import google.auth
import grpc
from google.api_core import grpc_helpers
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2

_PACKAGE = "google.cloud.aiplatform.v1"
# The key of the traffic split that stands for the model that is being deployed.
_NEW = "0"


@dataclass
class Vertex:
    """The state of a project.

    Attributes:
      models: the models by resource name, oldest first.
      endpoints: the endpoints by resource name, oldest first.
      parents: project and region of each request that creates something.
    """

    models: dict[str, types.Model] = field(default_factory=dict)
    endpoints: dict[str, types.Endpoint] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)

    def list_endpoints(self, request: types.ListEndpointsRequest) -> types.ListEndpointsResponse:
        wanted = request.filter.removeprefix("display_name=").strip('"')
        found = [e for e in self.endpoints.values() if e.display_name == wanted]
        return types.ListEndpointsResponse(endpoints=found)

    def get_endpoint(self, request: types.GetEndpointRequest) -> types.Endpoint:
        return self.endpoints[request.name]

    def create_endpoint(self, request: types.CreateEndpointRequest) -> operations_pb2.Operation:
        self.parents.add(request.parent)
        endpoint = request.endpoint
        endpoint.name = f"{request.parent}/endpoints/{100 + len(self.endpoints)}"
        self.endpoints[endpoint.name] = endpoint
        return _done(endpoint)

    def upload_model(self, request: types.UploadModelRequest) -> operations_pb2.Operation:
        self.parents.add(request.parent)
        model = request.model
        model.name = f"{request.parent}/models/{200 + len(self.models)}"
        model.supported_deployment_resources_types = [types.Model.DeploymentResourcesType.DEDICATED_RESOURCES]
        self.models[model.name] = model
        return _done(types.UploadModelResponse(model=model.name))

    def get_model(self, request: types.GetModelRequest) -> types.Model:
        return self.models[request.name]

    def deploy_model(self, request: types.DeployModelRequest) -> operations_pb2.Operation:
        endpoint, deployed = self.endpoints[request.endpoint], request.deployed_model
        deployed.id = str(300 + len(endpoint.deployed_models))
        endpoint.deployed_models.append(deployed)
        split = dict(request.traffic_split)
        assert sum(split.values()) == 100, "Vertex refuses a split that does not add up to 100"
        known = {each.id for each in endpoint.deployed_models}
        endpoint.traffic_split = {deployed.id if key == _NEW else key: part for key, part in split.items()}
        assert set(endpoint.traffic_split) <= known
        return _done(types.DeployModelResponse(deployed_model=deployed))


def _done(response: Any) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(name="projects/1/operations/1", done=True)
    operation.response.Pack(type(response).pb(response))
    return operation


@contextmanager
def serve() -> Iterator[Vertex]:
    """Connects Google's client to an empty project while the body runs."""
    vertex = Vertex()
    services: dict[str, dict[str, Callable[[Any], Any]]] = {
        "EndpointService": {
            "ListEndpoints": vertex.list_endpoints,
            "GetEndpoint": vertex.get_endpoint,
            "CreateEndpoint": vertex.create_endpoint,
            "DeployModel": vertex.deploy_model,
        },
        "ModelService": {"UploadModel": vertex.upload_model, "GetModel": vertex.get_model},
    }
    server = grpc.server(futures.ThreadPoolExecutor(1))
    for service, methods in services.items():
        handlers = {name: _handler(name, answer) for name, answer in methods.items()}
        generic = grpc.method_handlers_generic_handler(f"{_PACKAGE}.{service}", handlers)
        server.add_generic_rpc_handlers([generic])
    port = server.add_insecure_port("localhost:0")
    server.start()

    def connect(*_: Any, **__: Any) -> grpc.Channel:
        return grpc.insecure_channel(f"localhost:{port}")

    try:
        with (
            mock.patch.object(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "p")),
            mock.patch.object(grpc_helpers, "create_channel", connect),
        ):
            yield vertex
    finally:
        server.stop(None)


def _handler(name: str, answer: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
    request = getattr(types, f"{name}Request")

    def serialize(response: Any) -> bytes:
        if isinstance(response, operations_pb2.Operation):
            return response.SerializeToString()
        return type(response).serialize(response)

    return grpc.unary_unary_rpc_method_handler(lambda sent, _: answer(sent), request.deserialize, serialize)
