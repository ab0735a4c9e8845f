"""Routes that carry tar archives in and out of containers. Engine API, ContainerArchive, ContainerExport."""

from __future__ import annotations

import functools

from aiohttp import web

from naru.errors import InvalidArgument
from naru.server.call import Call
from naru.server.query import raw_json
from naru.server.routes import Route
from naru.server.streams import archive_judged, body_reader, stream_file

STAT_HEADER = "X-Docker-Container-Path-Stat"
TAR = "application/x-tar"


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path cannot have a NUL in it")
    return path


async def info(call: Call) -> web.StreamResponse:
    stat = await call.run(call.engine.container_archive_info, call["id"], _path(call))
    return web.Response(headers={STAT_HEADER: raw_json(stat)})


async def get(call: Call) -> web.StreamResponse:
    stat, write = await call.run(call.engine.container_archive, call["id"], _path(call))
    return await stream_file(call, write, content_type=TAR, headers={STAT_HEADER: raw_json(stat)})


async def put(call: Call) -> web.StreamResponse:
    with archive_judged():
        await call.run_long(
            call.engine.put_container_archive,
            call["id"],
            _path(call),
            body_reader(call),
            no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
            copy_uidgid=call.flag("copyUIDGID"),
        )
    return web.Response()


async def export(call: Call) -> web.StreamResponse:
    container = await call.run(call.engine.container_inspect, call["id"])
    write = functools.partial(call.engine.container_export, container.id)
    return await stream_file(call, write, content_type="application/octet-stream")


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", info, "container_archive_info"),
    Route("GET", "/containers/{id}/archive", get, "container_archive"),
    Route("PUT", "/containers/{id}/archive", put, "put_container_archive"),
    Route("GET", "/containers/{id}/export", export, "container_export"),
)
