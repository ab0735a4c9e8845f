"""What a container runs: the request over the image's defaults, by Docker's rules. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from naru.api.container import ContainerConfig, HealthConfig
from naru.errors import InvalidArgument
from naru.oci import image as oci


def merge(request: ContainerConfig, image: oci.ContainerConfig | None) -> ContainerConfig:
    """Return the config of a container asked for by `request` from an image with defaults `image`.

    An entrypoint of the request drops the image's command with its entrypoint; environment, labels, ports and volumes
    add up, the request winning. InvalidArgument: nothing to run.
    """
    image = image or oci.ContainerConfig()
    entrypoint, cmd = request.entrypoint, request.cmd
    if not entrypoint and not cmd:
        cmd = image.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint
    elif entrypoint == [""]:
        entrypoint = []  # `--entrypoint ""` clears the image's
    if not entrypoint and not cmd:
        raise InvalidArgument("no command specified")
    return ContainerConfig(
        hostname=request.hostname,
        domainname=request.domainname,
        user=request.user or image.user,
        attach_stdin=request.attach_stdin,
        attach_stdout=request.attach_stdout,
        attach_stderr=request.attach_stderr,
        exposed_ports=_with_defaults(request.exposed_ports, image.exposed_ports),
        tty=request.tty,
        open_stdin=request.open_stdin,
        stdin_once=request.stdin_once,
        env=merge_environment(image.env or [], request.env or []),
        cmd=cmd,
        healthcheck=_healthcheck(request.healthcheck, image.healthcheck),
        image=request.image,
        volumes=_with_defaults(request.volumes, image.volumes),
        working_dir=request.working_dir or image.working_dir,
        entrypoint=entrypoint or None,
        network_disabled=request.network_disabled,
        on_build=request.on_build,
        labels={**(image.labels or {}), **(request.labels or {})},
        stop_signal=request.stop_signal or image.stop_signal,
        stop_timeout=request.stop_timeout,
        shell=request.shell or image.shell,
    )


def merge_environment(defaults: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return `asked` followed by the defaults whose names it does not mention, as moby orders them."""
    names = {entry.partition("=")[0] for entry in asked}
    return [*asked, *(entry for entry in defaults if entry.partition("=")[0] not in names)]


def _with_defaults(
    asked: dict[str, dict[str, str]] | None, defaults: dict[str, dict[str, str]] | None
) -> dict[str, dict[str, str]] | None:
    names = {**(asked or {}), **(defaults or {})}
    return {name: {} for name in names} or None


def _healthcheck(asked: HealthConfig | None, default: oci.Healthcheck | None) -> HealthConfig | None:
    if default is None:
        return asked
    inherited = msgspec.convert(msgspec.to_builtins(default), HealthConfig)
    if asked is None:
        return inherited
    return HealthConfig(
        test=asked.test or inherited.test,
        interval=asked.interval or inherited.interval,
        timeout=asked.timeout or inherited.timeout,
        start_period=asked.start_period or inherited.start_period,
        start_interval=asked.start_interval or inherited.start_interval,
        retries=asked.retries or inherited.retries,
    )
