"""Routes of images: list, inspect, pull, push, tag, remove, save, load, import, commit. Engine API, Image."""

from __future__ import annotations

from typing import BinaryIO

from aiohttp import web

from naru.api.container import ContainerConfig
from naru.api.image import CommitOptions
from naru.errors import InvalidArgument, Unsupported
from naru.server import query
from naru.server.archives import TAR
from naru.server.call import Call
from naru.server.routes import Route
from naru.server.streams import archive_judged, body_reader, stream_file, stream_progress
from naru.server.verbs import Progress


async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    if call.version < (1, 25) and call.text("filter"):
        filters.setdefault("reference", [call.text("filter")])
    manifests = call.flag("manifests") and call.version >= (1, 47)
    if call.flag("identity") and call.version >= (1, 54) and not manifests:
        raise InvalidArgument("conflicting options: identity requires manifests=1")
    found = await call.run(
        call.engine.image_list,
        all=call.flag("all"),
        filters=filters,
        shared_size=call.flag("shared-size") and call.version >= (1, 42),
        digests=call.flag("digests"),
        manifests=manifests,
    )
    return call.answer(found)


async def create(call: Call) -> web.StreamResponse:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    name, source = call.text("fromImage"), call.text("fromSrc")
    if name:
        return await _pull(call, name)
    if source != "-":
        raise Unsupported(f"import from {source or 'nowhere'}: only the request's body (fromSrc=-) can be imported")
    return await _import(call)


async def _pull(call: Call, name: str) -> web.StreamResponse:
    tag, platform, auth = call.text("tag"), call.text("platform"), query.credentials(call.request.headers)

    def pull(progress: Progress) -> None:
        call.engine.image_create(name, tag, platform, auth, progress)

    return await stream_progress(call, pull)


async def _import(call: Call) -> web.StreamResponse:
    source = body_reader(call)

    def import_(progress: Progress) -> None:
        with archive_judged():
            call.engine.image_import(
                source,
                repo=call.text("repo"),
                tag=call.text("tag"),
                message=call.text("message"),
                changes=call.query.getall("changes", []),
                platform=call.text("platform"),
                progress=progress,
            )

    return await stream_progress(call, import_)


async def inspect(call: Call) -> web.StreamResponse:
    manifests = call.flag("manifests") and call.version >= (1, 48)
    platform = call.text("platform") if call.version >= (1, 49) else ""
    if manifests and platform:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    found = await call.run(call.engine.image_inspect, call["name"], manifests=manifests, platform=platform)
    return call.answer(found)


async def attestations(call: Call) -> web.StreamResponse:
    await call.run(call.engine.image_inspect, call["name"], manifests=False, platform="")
    raise Unsupported("image attestations are not offered by this engine: only an image's own platform is kept")


async def history(call: Call) -> web.StreamResponse:
    return call.answer(await call.run(call.engine.image_history, call["name"], platform=call.text("platform")))


async def push(call: Call) -> web.StreamResponse:
    name, tag, platform = call["name"], call.text("tag"), call.text("platform")
    auth = query.credentials(call.request.headers)

    def push_(progress: Progress) -> None:
        call.engine.image_push(name, tag, platform, auth, progress)

    return await stream_progress(call, push_)


async def tag(call: Call) -> web.StreamResponse:
    if not call.text("repo"):
        raise InvalidArgument("invalid reference format")
    await call.run(call.engine.image_tag, call["name"], repo=call.text("repo"), tag=call.text("tag"))
    return web.Response(status=201)


async def delete(call: Call) -> web.StreamResponse:
    removed = await call.run_long(
        call.engine.image_delete, call["name"], force=call.flag("force"), noprune=call.flag("noprune")
    )
    return call.answer(removed)


async def prune(call: Call) -> web.StreamResponse:
    return call.answer(await call.run_long(call.engine.image_prune, filters=call.filters()))


async def search(call: Call) -> web.StreamResponse:
    found = await call.run_long(
        call.engine.image_search,
        call.text("term"),
        limit=call.number("limit") or 0,
        filters=call.filters(),
        auth=query.credentials(call.request.headers),
    )
    return call.answer(found)


async def save(call: Call) -> web.StreamResponse:
    names = [call["name"]] if "name" in call.variables else call.query.getall("names", [])

    def write(sink: BinaryIO) -> None:
        call.engine.image_get(names, sink)

    return await stream_file(call, write, content_type=TAR)


async def load(call: Call) -> web.StreamResponse:
    source, quiet = body_reader(call), call.flag("quiet")

    def load_(progress: Progress) -> None:
        with archive_judged():
            call.engine.image_load(source, quiet, progress)

    # Docker says 200 before it reads the archive; docker-py looks for the error in the stream.
    return await stream_progress(call, load_, always_ok=True)


async def commit(call: Call) -> web.StreamResponse:
    options = CommitOptions(
        container=call.text("container"),
        repo=call.text("repo"),
        tag=call.text("tag"),
        comment=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", default=True),
        changes=[line for text in call.query.getall("changes", []) for line in text.splitlines() if line.strip()],
    )
    config = await call.body_or_none(ContainerConfig)
    return call.answer(await call.run_long(call.engine.image_commit, options, config), status=201)


async def distribution(call: Call) -> web.StreamResponse:
    auth = query.credentials(call.request.headers)
    return call.answer(await call.run_long(call.engine.distribution_inspect, call["name"], auth))


ROUTES = (
    Route("GET", "/images/json", list_, "image_list"),
    Route("GET", "/images/search", search, "image_search"),
    Route("GET", "/images/get", save, "image_get"),
    Route("POST", "/images/create", create, "image_create"),
    Route("POST", "/images/load", load, "image_load"),
    Route("POST", "/images/prune", prune, "image_prune"),
    Route("GET", "/images/{name:path}/json", inspect, "image_inspect"),
    Route("GET", "/images/{name:path}/attestations", attestations),
    Route("GET", "/images/{name:path}/history", history, "image_history"),
    Route("GET", "/images/{name:path}/get", save, "image_get"),
    Route("POST", "/images/{name:path}/push", push, "image_push"),
    Route("POST", "/images/{name:path}/tag", tag, "image_tag"),
    Route("DELETE", "/images/{name:path}", delete, "image_delete"),
    Route("POST", "/commit", commit, "image_commit"),
    Route("GET", "/distribution/{name:path}/json", distribution, "distribution_inspect"),
)
