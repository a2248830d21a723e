"""What each call of the management service does."""

from google.protobuf.message import Message

from admin.answers import bad_request
from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.calls import Call, Services
from admin.grpc_api.messages import config_document, config_message, document, message


async def get_config(call: Call, _: pb.GetConfigRequest) -> pb.GetConfigResponse:
    found = dict(await call.management.config())
    version = found.pop("version")
    return pb.GetConfigResponse(config=config_message(found), version=version)


async def update_config(call: Call, request: pb.UpdateConfigRequest) -> pb.UpdateConfigResponse:
    given = config_document(request.config)
    async with call.recorded("balancing.change", ", ".join(sorted(given))) as caller:
        version = await call.management.update_config(given, caller.actor)
    return pb.UpdateConfigResponse(version=version)


async def reload_ssl(call: Call, _: pb.ReloadSSLRequest) -> pb.ReloadSSLResponse:
    async with call.recorded("tls.reload", "tls") as caller:
        return message(pb.ReloadSSLResponse, await call.management.reload_tls(caller.actor))


async def get_backends(call: Call, request: pb.GetBackendsRequest) -> pb.GetBackendsResponse:
    found = await call.management.backends(request.upstream or None)
    return pb.GetBackendsResponse(backends=config_message({"backends": found}).backends)


async def add_backend(call: Call, request: pb.AddBackendRequest) -> pb.AddBackendResponse:
    upstream, backend = named(request, "upstream"), document(request.backend)
    async with call.recorded("backend.add", target(upstream, request.backend.id)) as caller:
        added = await call.management.add_backend(upstream, backend, caller.actor)
    return pb.AddBackendResponse(backend=message(pb.Backend, added))


async def remove_backend(call: Call, request: pb.RemoveBackendRequest) -> pb.RemoveBackendResponse:
    upstream, backend_id = named(request, "upstream"), named(request, "backend_id")
    async with call.recorded("backend.remove", target(upstream, backend_id)) as caller:
        await call.management.remove_backend(upstream, backend_id, caller.actor)
    return pb.RemoveBackendResponse()


async def update_backend(call: Call, request: pb.UpdateBackendRequest) -> pb.UpdateBackendResponse:
    upstream, backend = named(request, "upstream"), document(request.backend)
    detail = {"fields": sorted(backend)}
    async with call.recorded("backend.change", target(upstream, request.backend.id), detail) as caller:
        changed = await call.management.update_backend(upstream, backend, caller.actor)
    return pb.UpdateBackendResponse(backend=message(pb.Backend, changed))


async def disconnect_backend(call: Call, request: pb.DisconnectBackendRequest) -> pb.DisconnectBackendResponse:
    upstream, backend_id = named(request, "upstream"), named(request, "backend_id")
    async with call.recorded("backend.disconnect", target(upstream, backend_id)) as caller:
        drained = await call.management.disconnect_backend(upstream, backend_id, caller.actor)
    return pb.DisconnectBackendResponse(backend=message(pb.Backend, drained))


async def get_server_stats(call: Call, _: pb.GetServerStatsRequest) -> pb.GetServerStatsResponse:
    return message(pb.GetServerStatsResponse, await call.management.server_stats())


async def get_backend_stats(call: Call, request: pb.GetBackendStatsRequest) -> pb.GetBackendStatsResponse:
    found = await call.management.backend_stats(request.upstream or None, request.backend_id or None)
    return pb.GetBackendStatsResponse(backends=[message(pb.BackendStats, one) for one in found])


async def report_performance(call: Call, request: pb.ReportPerformanceRequest) -> pb.ReportPerformanceResponse:
    upstream, backend_id = named(request, "upstream"), named(request, "backend_id")
    await call.management.report(upstream, backend_id, document(request.performance))
    return pb.ReportPerformanceResponse()


def named(request: Message, field: str) -> str:
    """Returns a field that has to be given. Raises Refusal."""
    given: str = getattr(request, field)
    if not given:
        raise bad_request(f"{field}: missing")
    return given


def target(upstream: str, backend_id: str) -> str:
    """What the log of actions calls a backend."""
    return f"{upstream}/{backend_id}" if backend_id else upstream


SERVICES: Services = {
    "ConfigService": {"GetConfig": get_config, "UpdateConfig": update_config, "ReloadSSL": reload_ssl},
    "BackendService": {
        "GetBackends": get_backends,
        "AddBackend": add_backend,
        "RemoveBackend": remove_backend,
        "UpdateBackend": update_backend,
        "DisconnectBackend": disconnect_backend,
    },
    "MonitorService": {
        "GetServerStats": get_server_stats,
        "GetBackendStats": get_backend_stats,
        "ReportPerformance": report_performance,
    },
}
