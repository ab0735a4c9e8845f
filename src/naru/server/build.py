"""Routes of the builder. Engine API, ImageBuild, BuildPrune."""

from __future__ import annotations

import threading

from aiohttp import web

from naru.api.build import BuildOptions
from naru.api.host import Ulimit
from naru.api.progress import ProgressMessage
from naru.server import query
from naru.server.call import Call
from naru.server.routes import Route
from naru.server.streams import archive_judged, body_reader, stream_progress
from naru.server.verbs import Progress


def _options(call: Call) -> BuildOptions:
    parameters = call.query
    force_remove = call.flag("forcerm")
    return BuildOptions(
        dockerfile=call.text("dockerfile") or "Dockerfile",
        tags=[tag for tag in parameters.getall("t", []) if tag],
        extra_hosts=parameters.getall("extrahosts", []),
        remote=call.text("remote"),
        quiet=call.flag("q"),
        no_cache=call.flag("nocache"),
        cache_from=query.json_value(parameters, "cachefrom", list[str]),
        pull=call.flag("pull"),
        remove=force_remove or call.flag("rm", default=True),
        force_remove=force_remove,
        memory=call.number("memory") or 0,
        memory_swap=call.number("memswap") or 0,
        cpu_shares=call.number("cpushares") or 0,
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cpu_period=call.number("cpuperiod") or 0,
        cpu_quota=call.number("cpuquota") or 0,
        cgroup_parent=call.text("cgroupparent"),
        build_args=query.json_value(parameters, "buildargs", dict[str, str | None]),
        shm_size=call.number("shmsize") or 0,
        ulimits=query.json_value(parameters, "ulimits", list[Ulimit]),
        squash=call.flag("squash"),
        labels=query.json_value(parameters, "labels", dict[str, str]),
        network_mode=call.text("networkmode"),
        platform=call.text("platform"),
        target=call.text("target"),
        outputs=call.text("outputs"),
        security_opt=parameters.getall("securityopt", []),
        build_id=call.text("buildid"),
        session=call.text("session"),
        version=call.text("version") or "1",
        auth_configs=query.credentials_by_host(call.request.headers),
    )


async def build(call: Call) -> web.StreamResponse:
    options, context, cancelled = _options(call), body_reader(call), threading.Event()

    def work(progress: Progress) -> None:
        def told(message: ProgressMessage) -> None:
            if message.aux is None or call.version >= (1, 30):
                progress(message)

        with archive_judged():
            call.engine.image_build(context, options, told, cancelled)

    try:
        return await stream_progress(call, work)
    finally:
        cancelled.set()


async def prune(call: Call) -> web.StreamResponse:
    return call.answer(await call.run_long(call.engine.build_prune, all=call.flag("all"), filters=call.filters()))


ROUTES = (
    Route("POST", "/build", build, "image_build"),
    Route("POST", "/build/prune", prune, "build_prune"),
)
