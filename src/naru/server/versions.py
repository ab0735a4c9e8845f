"""The API's versions: which we speak, and what older clients expect to see and may leave out.

The engine knows only the newest shape. One table changes answers, one changes requests; each row says below which
version it applies. Engine API version history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from naru.api.container import (
    BindOptions,
    ContainerConfig,
    ContainerCreateRequest,
    ContainerInspect,
    ContainerSummary,
    EndpointSettings,
    NetworkSettings,
)
from naru.api.disk import DiskUsage
from naru.api.image import ImageInspect, ImageSummary
from naru.api.system import SystemInfo
from naru.errors import InvalidArgument

Version = tuple[int, int]

NEWEST: Version = (1, 51)
OLDEST: Version = (1, 24)

NEWEST_TEXT = "1.51"
OLDEST_TEXT = "1.24"


def parse(text: str) -> Version:
    """Return "1.41" as a version. InvalidArgument, in Docker's words: one we do not speak."""
    major, _, minor = text.partition(".")
    version = (int(major), int(minor))
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is {OLDEST_TEXT}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(f"client version {text} is too new. Maximum supported API version is {NEWEST_TEXT}")
    return version


Plain = dict[str, Any]


def reshape(value: Any, version: Version) -> Any:
    """Return `value`, an answer in the newest shape, as clients of `version` know it."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, ContainerInspect):
        value = msgspec.structs.replace(value, network_settings=with_bridge_fields(value.network_settings))
    changes = [change for below, kind, change in _ANSWERS if version < below and isinstance(first, kind)]
    if not changes:
        return value
    plain = msgspec.to_builtins(value)
    for item in plain if isinstance(plain, list) else [plain]:
        for change in changes:
            change(item)
    return plain


def with_bridge_fields(settings: NetworkSettings) -> NetworkSettings:
    """Return `settings` with the endpoint on the default bridge repeated at the top (until API 1.52)."""
    bridge = (settings.networks or {}).get("bridge")
    if bridge is None:
        return settings
    return msgspec.structs.replace(
        settings,
        endpoint_id=bridge.endpoint_id,
        gateway=bridge.gateway,
        global_ipv6_address=bridge.global_ipv6_address,
        global_ipv6_prefix_len=bridge.global_ipv6_prefix_len,
        ip_address=bridge.ip_address,
        ip_prefix_len=bridge.ip_prefix_len,
        ipv6_gateway=bridge.ipv6_gateway,
        mac_address=bridge.mac_address,
    )


def _info_legacy(info: Plain) -> None:
    """Fields that stopped to mean anything, but had no "omitempty"."""
    info.setdefault("BridgeNfIptables", False)
    info.setdefault("BridgeNfIp6tables", False)
    for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        info[commit]["Expected"] = info[commit]["ID"]


def _info_registries(info: Plain) -> None:
    info["RegistryConfig"].setdefault("AllowNondistributableArtifactsCIDRs", None)
    info["RegistryConfig"].setdefault("AllowNondistributableArtifactsHostnames", None)


def _info_security_names(info: Plain) -> None:
    info["SecurityOptions"] = [option.split(",")[0].removeprefix("name=") for option in info["SecurityOptions"]]


def _image_config_of_containers(image: Plain) -> None:
    """An image's configuration once had all fields of a container's."""
    legacy = msgspec.to_builtins(ContainerConfig(labels=None))
    image["Config"] = legacy | (image["Config"] or {})


def _without_manifests(image: Plain) -> None:
    image.pop("Manifests", None)
    image.pop("Descriptor", None)


def _without_manifest(container: Plain) -> None:
    container.pop("ImageManifestDescriptor", None)


def _without_annotations(summary: Plain) -> None:
    summary["HostConfig"].pop("Annotations", None)


def _build_container(image: Plain) -> None:
    image["Container"] = ""
    image["ContainerConfig"] = None


def _aliases_with_id(container: Plain) -> None:
    """On networks of one's own, a container's short ID was listed among its aliases."""
    for name, endpoint in (container["NetworkSettings"]["Networks"] or {}).items():
        if name not in ("bridge", "host", "none"):
            short = container["Id"][:12]
            aliases = endpoint.get("Aliases") or []
            endpoint["Aliases"] = aliases if short in aliases else [*aliases, short]


def _config_mac_address(container: Plain) -> None:
    networks = container["NetworkSettings"]["Networks"] or {}
    main = networks.get("bridge") or next(iter(networks.values()), None)
    if main and main.get("MacAddress"):
        container["Config"]["MacAddress"] = main["MacAddress"]


def _virtual_size(image: Plain) -> None:
    image["VirtualSize"] = image["Size"]


def _usage_virtual_size(usage: Plain) -> None:
    for image in usage["Images"] or []:
        _virtual_size(image)


def _none_tags(image: Plain) -> None:
    image["RepoTags"] = image["RepoTags"] or ["<none>:<none>"]
    image["RepoDigests"] = image["RepoDigests"] or ["<none>@<none>"]


# Below which version, for which type, what is changed. Rows of one type run top down.
_ANSWERS: tuple[tuple[Version, type, Callable[[Plain], None]], ...] = (
    ((1, 50), SystemInfo, _info_legacy),
    ((1, 49), SystemInfo, _info_registries),
    ((1, 25), SystemInfo, _info_security_names),
    ((1, 50), ImageInspect, _image_config_of_containers),
    ((1, 48), ImageInspect, _without_manifests),
    ((1, 45), ImageInspect, _build_container),
    ((1, 44), ImageInspect, _virtual_size),
    ((1, 47), ImageSummary, _without_manifests),
    ((1, 44), ImageSummary, _virtual_size),
    ((1, 43), ImageSummary, _none_tags),
    ((1, 44), DiskUsage, _usage_virtual_size),
    ((1, 48), ContainerInspect, _without_manifest),
    ((1, 45), ContainerInspect, _aliases_with_id),
    ((1, 44), ContainerInspect, _config_mac_address),
    ((1, 48), ContainerSummary, _without_manifest),
    ((1, 46), ContainerSummary, _without_annotations),
)


def normalize_create(request: ContainerCreateRequest, version: Version) -> None:
    """Change a create request of a `version` client into the newest shape."""
    for below, change in _CREATE_REQUESTS:
        if version < below:
            change(request)
    if request.mac_address:
        _endpoint_mac_address(request)


def _endpoint_mac_address(request: ContainerCreateRequest) -> None:
    """Move the deprecated `MacAddress` to the endpoint it is meant for. InvalidArgument: they differ."""
    mode = request.host_config.network_mode
    name = "bridge" if mode in ("", "default") else mode
    if name in ("host", "none") or name.startswith("container:"):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    endpoints = request.networking_config.endpoints_config or {}
    endpoint = endpoints.get(mode) or endpoints.setdefault(name, EndpointSettings())
    if endpoint.mac_address not in ("", request.mac_address):
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or "
            "should be left empty"
        )
    endpoint.mac_address = request.mac_address
    request.mac_address = ""
    request.networking_config.endpoints_config = endpoints


def _ipc_shareable(request: ContainerCreateRequest) -> None:
    request.host_config.ipc_mode = request.host_config.ipc_mode or "shareable"


def _mounts_as_of_1_41(request: ContainerCreateRequest) -> None:
    """Options that clients of the time sent without effect."""
    for mount in request.host_config.mounts or []:
        if mount.bind_options is not None:
            mount.bind_options.create_mountpoint = False


def _without_options_of_1_44(request: ContainerCreateRequest) -> None:
    """A read-only bind did not reach down to the mounts below it, and there was no start interval."""
    for mount in request.host_config.mounts or []:
        if mount.type == "bind" and mount.read_only:
            mount.bind_options = mount.bind_options or BindOptions()
            mount.bind_options.read_only_non_recursive = True
            mount.bind_options.read_only_force_recursive = False
    if request.healthcheck is not None:
        request.healthcheck.start_interval = 0


_CREATE_REQUESTS: tuple[tuple[Version, Callable[[ContainerCreateRequest], None]], ...] = (
    ((1, 44), _without_options_of_1_44),
    ((1, 42), _mounts_as_of_1_41),
    ((1, 40), _ipc_shareable),
)
