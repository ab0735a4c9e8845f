"""What `docker inspect` and `docker ps` show of a container. Pure but for the paths it is handed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from naru.api.container import (
    ContainerInspect,
    ContainerState,
    ContainerSummary,
    Health,
    PortSummary,
    SummaryHealth,
    SummaryHostConfig,
    SummaryNetworkSettings,
)
from naru.api.host import PortBinding as WirePortBinding
from naru.api.host import PortMap
from naru.api.network import EndpointSettings, NetworkSettings
from naru.engine.clock import humanize, now, rfc3339
from naru.engine.container import Container, Containers, Status
from naru.engine.parts import Paths
from naru.engine.prune import truth
from naru.errors import InvalidArgument, NotFound
from naru.network.names import dns_names
from naru.network.record import Endpoint

_PREDEFINED = ("bridge", "host", "none")
_FILTERS = {
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
}
_HEALTH_WORDS = {"none", "starting", "healthy", "unhealthy"}
_PORTS = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")


def inspected(container: Container, paths: Paths, exec_ids: Sequence[str], health: Health | None) -> ContainerInspect:
    """Return everything Docker tells about one container (sizes are added by the caller)."""
    directory = paths.container(container.id)
    command = [*(container.config.entrypoint or []), *(container.config.cmd or [])]
    was_started = container.started_at is not None
    has_log = container.host_config.log_config.type in ("json-file", "local")
    config = container.config
    if not config.hostname and container.host_config.network_mode != "host":
        config = msgspec.structs.replace(config, hostname=container.id[:12])
    return ContainerInspect(
        id=container.id,
        created=rfc3339(container.created_at),
        path=command[0],
        args=command[1:],
        state=state(container, health),
        image=container.image_id,
        resolv_conf_path=str(directory / "resolv.conf") if was_started else "",
        hostname_path=str(directory / "hostname") if was_started else "",
        hosts_path=str(directory / "hosts") if was_started else "",
        log_path=str(paths.log(container.id)) if was_started and has_log else "",
        name=f"/{container.name}",
        restart_count=container.restart_count,
        platform="linux",
        exec_ids=list(exec_ids) or None,
        host_config=container.host_config,
        mounts=container.mounts,
        config=config,
        network_settings=network_settings(container),
    )


def state(container: Container, health: Health | None) -> ContainerState:
    """Return the State object of inspect."""
    status = container.status
    return ContainerState(
        status=str(status),
        running=status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING),
        paused=status is Status.PAUSED,
        restarting=status is Status.RESTARTING,
        oom_killed=container.is_oom_killed,
        dead=status is Status.DEAD,
        pid=container.pid,
        exit_code=container.exit_code,
        error=container.error,
        started_at=rfc3339(container.started_at),
        finished_at=rfc3339(container.finished_at),
        health=health,
    )


def network_settings(container: Container) -> NetworkSettings:
    """Return where the container is on its networks; addresses only while it runs."""
    return NetworkSettings(
        sandbox_id=container.id if container.is_running else "",
        sandbox_key=f"/proc/{container.pid}/ns/net" if container.is_running else "",
        ports=port_map(container),
        networks=endpoint_settings(container),
    )


def port_map(container: Container) -> PortMap:
    """Return published ports by `80/tcp`, and None for exposed ones that are not published."""
    found: PortMap = {}
    if not container.is_running:
        return found
    for port in container.config.exposed_ports or {}:
        found[port if "/" in port else f"{port}/tcp"] = None
    for binding in container.ports:
        key = f"{binding.container_port}/{binding.protocol}"
        bound = found.get(key) or []
        bound.append(WirePortBinding(host_ip=binding.host_ip, host_port=str(binding.host_port)))
        found[key] = bound
    return found


def endpoint_settings(container: Container) -> dict[str, EndpointSettings]:
    """Return the Networks map: what was asked, filled with what came of it."""
    asked = container.networking.endpoints_config or {}
    joined = {endpoint.network_name: endpoint for endpoint in container.endpoints}
    return {name: _endpoint(container, name, settings, joined.get(name)) for name, settings in asked.items()}


def _endpoint(container: Container, name: str, asked: EndpointSettings, endpoint: Endpoint | None) -> EndpointSettings:
    shown = EndpointSettings(
        ipam_config=asked.ipam_config,
        links=asked.links,
        aliases=asked.aliases,
        driver_opts=asked.driver_opts,
        gw_priority=asked.gw_priority,
        mac_address=asked.mac_address,
        network_id=asked.network_id,
    )
    if name not in _PREDEFINED:
        shown.dns_names = dns_names(container.name, container.id, container.config.hostname, asked.aliases or ())
    if endpoint is not None:
        shown.mac_address = endpoint.mac
        shown.network_id = endpoint.network_id
        shown.endpoint_id = endpoint.endpoint_id
        shown.gateway = endpoint.gateway
        shown.ip_address = endpoint.ip
        shown.ip_prefix_len = endpoint.prefix_len
        shown.ipv6_gateway = endpoint.gateway6
        shown.global_ipv6_address = endpoint.ip6
        shown.global_ipv6_prefix_len = endpoint.prefix_len6
    return shown


def summary(container: Container, image: str, health: Health | None) -> ContainerSummary:
    """Return the line of `docker ps`; `image` is how the image is called now."""
    command = [*(container.config.entrypoint or []), *(container.config.cmd or [])]
    return ContainerSummary(
        id=container.id,
        names=[f"/{container.name}"],
        image=image,
        image_id=container.image_id,
        command=" ".join(_quoted(word) for word in command),
        created=int(container.created_at.timestamp()),
        ports=_port_summaries(container),
        labels=container.config.labels or {},
        state=str(container.status),
        status=status_text(container, health),
        host_config=SummaryHostConfig(
            network_mode=container.host_config.network_mode, annotations=container.host_config.annotations
        ),
        network_settings=SummaryNetworkSettings(networks=endpoint_settings(container)),
        mounts=container.mounts,
        health=SummaryHealth()
        if health is None
        else SummaryHealth(status=health.status, failing_streak=health.failing_streak),
    )


def status_text(container: Container, health: Health | None) -> str:
    """Return Docker's words: `Up 3 minutes (Paused)`, `Exited (0) 2 hours ago`."""
    match container.status:
        case Status.RUNNING | Status.PAUSED:
            up = f"Up {humanize(container.started_at or now())}"
            if container.status is Status.PAUSED:
                return f"{up} (Paused)"
            if health is None:
                return up
            return f"{up} ({'health: starting' if health.status == 'starting' else health.status})"
        case Status.RESTARTING:
            return f"Restarting ({container.exit_code}) {humanize(container.finished_at or now())} ago"
        case Status.EXITED:
            return f"Exited ({container.exit_code}) {humanize(container.finished_at or now())} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case _:
            return "Created"


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _port_summaries(container: Container) -> list[PortSummary]:
    found = []
    for key, bindings in port_map(container).items():
        number, _, protocol = key.partition("/")
        if not bindings:
            found.append(PortSummary(private_port=int(number), type=protocol))
        for binding in bindings or []:
            found.append(
                PortSummary(
                    ip=binding.host_ip,
                    private_port=int(number),
                    public_port=int(binding.host_port),
                    type=protocol,
                )
            )
    return found


def select(
    containers: Containers,
    *,
    show_all: bool,
    limit: int | None,
    filters: Mapping[str, Sequence[str]],
    health: Callable[[str], Health | None],
) -> list[Container]:
    """Return the containers that `docker ps` lists, newest first. InvalidArgument: an unknown filter."""
    for key in filters:
        if key not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{key}'")
    for status in filters.get("status", ()):
        if status not in Status.__members__.values():
            raise InvalidArgument(f"invalid filter 'status={status}'")
    for exit_code in filters.get("exited", ()):
        if not exit_code.lstrip("+-").isdecimal():
            raise InvalidArgument(f"invalid filter 'exited={exit_code}': not a number")
    for word in filters.get("health", ()):
        if word not in _HEALTH_WORDS:
            raise InvalidArgument(f"unrecognised filter value for health: {word}")
    for key in ("expose", "publish"):
        for port in filters.get(key, ()):
            if not _PORTS.fullmatch(port):
                raise InvalidArgument(f"error while looking up for {key} {port}: not a port, or a range of ports")
    is_task = truth(filters, "is-task")
    everything = containers.all()
    bounds = {key: _moment(containers, filters[key]) for key in ("before", "since") if filters.get(key)}
    wanted = show_all or bool(limit and limit > 0) or bool(filters.get("status")) or bool(filters.get("exited"))
    found = [
        container
        for container in everything
        if (wanted or container.is_running or container.status is Status.RESTARTING)
        and ("before" not in bounds or container.created_at < bounds["before"])
        and ("since" not in bounds or container.created_at > bounds["since"])
        and all(
            any(_matches(container, key, value) for value in values)
            for key, values in filters.items()
            if values and key not in ("before", "since", "label", "health", "is-task")
        )
        and (not filters.get("health") or _health_word(health(container.id)) in filters["health"])
        and all(_matches(container, "label", value) for value in filters.get("label", ()))
        and not is_task  # of a swarm
    ]
    return found[:limit] if limit and limit > 0 else found


def _health_word(health: Health | None) -> str:
    return "none" if health is None else health.status


def _moment(containers: Containers, values: Sequence[str]) -> datetime:
    return containers.get(values[0]).created_at


def _matches(container: Container, key: str, value: str) -> bool:
    match key:
        case "id":
            return container.id.startswith(value)
        case "name":
            return bool(
                _name_pattern(value).search(container.name) or _name_pattern(value).search(f"/{container.name}")
            )
        case "status":
            return container.status == value
        case "exited":
            return container.status is Status.EXITED and str(container.exit_code) == value
        case "label":
            name, separator, wanted = value.partition("=")
            labels = container.config.labels or {}
            return name in labels and (not separator or labels[name] == wanted)
        case "ancestor":
            return value in (container.image, container.image.split(":")[0]) or container.image_id.removeprefix(
                "sha256:"
            ).startswith(value.removeprefix("sha256:"))
        case "volume":
            return any(value in (point.name, point.destination, point.source) for point in container.mounts)
        case "network":
            return any(value in (e.network_name, e.network_id) for e in container.endpoints) or value in (
                endpoint_settings(container)
            )
        case "publish" | "expose":
            wanted_ports, _, protocol = value.partition("/")
            first, _, last = wanted_ports.partition("-")
            asked = {f"{port}/{protocol or 'tcp'}" for port in range(int(first), int(last or first) + 1)}
            return any(
                port in asked and (bindings or key == "expose") for port, bindings in port_map(container).items()
            )
        case "isolation":
            return value in ("", "default")
        case _:
            return False


def _name_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:
        return re.compile(re.escape(text))


def require(containers: Containers, reference: str) -> Container:
    """Return a container by reference. NotFound in Docker's words."""
    try:
        return containers.get(reference)
    except NotFound:
        raise NotFound(f"No such container: {reference}") from None
