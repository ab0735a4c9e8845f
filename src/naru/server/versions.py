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
    ContainerUpdateRequest,
    EndpointSettings,
)
from naru.api.disk import DiskUsage
from naru.api.event import EventMessage
from naru.api.host import PortBinding
from naru.api.image import ImageInspect, ImageSummary
from naru.api.network import Network
from naru.api.system import SystemInfo
from naru.errors import InvalidArgument

Version = tuple[int, int]

NEWEST: Version = (1, 55)
OLDEST: Version = (1, 24)

NEWEST_TEXT = "1.55"
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
    changes = [change for below, kind, change in _ANSWERS if version < below and isinstance(first, kind)]
    if not changes:
        return value
    plain = msgspec.to_builtins(value)
    for item in plain if isinstance(plain, list) else [plain]:
        for change in changes:
            change(item)
    return plain


def shown_usage(usage: DiskUsage, version: Version, *, verbose: bool) -> Any:
    """Return disk usage for clients of `version`: sums since 1.52, with every object if `verbose`; before, objects.

    A client of 1.52 that does not know `verbose` may be an older one on the newest version, so 1.52 gives both.
    """
    plain = msgspec.to_builtins(usage)
    objects = {key: (plain.get(kind) or {}).pop("Items", []) for key, kind in _OBJECTS if plain.get(kind)}
    legacy = {"LayersSize": (plain.get("ImageUsage") or {}).get("TotalSize", 0), **_WITHOUT_OBJECTS, **objects}
    if version < (1, 52):
        for image in (legacy["Images"] or []) if version < (1, 44) else []:
            _virtual_size(image)
        return legacy
    if verbose:
        return msgspec.to_builtins(usage)
    return legacy | plain if version < (1, 53) else plain


_OBJECTS = (
    ("Images", "ImageUsage"),
    ("Containers", "ContainerUsage"),
    ("Volumes", "VolumeUsage"),
    ("BuildCache", "BuildCacheUsage"),
)
_WITHOUT_OBJECTS: Plain = dict.fromkeys(key for key, _ in _OBJECTS)


# --- answers: from the newest shape back ----------------------------------------------------------------------------


def _event_of_1_21(event: Plain) -> None:
    """The action, the object and its image stood at the top before there were actors, and stayed there for long."""
    if event["Type"] in ("container", "image"):
        event["status"], event["id"] = event["Action"], event["Actor"]["ID"]
    if event["Type"] == "container" and "image" in event["Actor"]["Attributes"]:
        event["from"] = event["Actor"]["Attributes"]["image"]


def _network_without_status(network: Plain) -> None:
    network.pop("Status", None)
    network.setdefault("Containers", {})


# What stood in NetworkSettings before there were networks of one's own; always empty but for the default bridge's.
_BRIDGE_FIELDS: Plain = {
    "Bridge": "",
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
    "EndpointID": "",
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def _bridge_at_the_top(container: Plain) -> None:
    """The endpoint on the default bridge is repeated."""
    settings = container["NetworkSettings"]
    bridge = (settings["Networks"] or {}).get("bridge") or {}
    for key, empty in _BRIDGE_FIELDS.items():
        settings[key] = bridge.get(key, empty)


def _config_on_build(container: Plain) -> None:
    container["Config"].setdefault("OnBuild", None)


def _without_health(summary: Plain) -> None:
    summary.pop("Health", None)


def _info_legacy(info: Plain) -> None:
    """Fields that stopped to mean anything, but had no "omitempty"."""
    info.setdefault("BridgeNfIptables", False)
    info.setdefault("BridgeNfIp6tables", False)


def _info_registries(info: Plain) -> None:
    info["RegistryConfig"].setdefault("AllowNondistributableArtifactsCIDRs", None)
    info["RegistryConfig"].setdefault("AllowNondistributableArtifactsHostnames", None)
    info.pop("FirewallBackend", None)
    for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        info[commit]["Expected"] = info[commit]["ID"]


def _info_runtimes(info: Plain) -> None:
    for runtime in info["Runtimes"].values():
        runtime.pop("status", None)


def _info_security_names(info: Plain) -> None:
    info["SecurityOptions"] = [option.split(",")[0].removeprefix("name=") for option in info["SecurityOptions"]]


_IMAGE_CONFIG: Plain = dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels")) | {
    "User": "",
    "WorkingDir": "",
}


def _image_with_empty_fields(image: Plain) -> None:
    """What is left out today where there is nothing to say."""
    for key in ("Parent", "Comment", "DockerVersion", "Author"):
        image.setdefault(key, "")
    image["Config"] = _IMAGE_CONFIG | (image["Config"] or {})


def _image_config_of_containers(image: Plain) -> None:
    """An image's configuration once had all fields of a container's."""
    image["Config"] = msgspec.to_builtins(ContainerConfig(labels=None)) | (image["Config"] or {})


def _without_manifests(image: Plain) -> None:
    image.pop("Manifests", None)


def _without_descriptor(image: Plain) -> None:
    image.pop("Descriptor", None)
    image.pop("Manifests", None)


def _without_users(image: Plain) -> None:
    image["Containers"] = -1


def _without_manifest(container: Plain) -> None:
    container.pop("ImageManifestDescriptor", None)


def _without_annotations(summary: Plain) -> None:
    summary["HostConfig"].pop("Annotations", None)


def _build_container(image: Plain) -> None:
    image["Container"] = ""


def _build_config(image: Plain) -> None:
    """Gone since 1.45, but docker-compose 1.29, which speaks the newest version, fails to recreate without it."""
    image["ContainerConfig"] = {}


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


def _image_created(image: Plain) -> None:
    image.setdefault("Created", "0001-01-01T00:00:00Z")


def _none_tags(image: Plain) -> None:
    if not image["RepoTags"] and not image["RepoDigests"]:
        image["RepoTags"], image["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]


_EVERY: Version = (2, 0)

# Below which version, for which type, what is changed. Rows of one type run top down.
_ANSWERS: tuple[tuple[Version, type, Callable[[Plain], None]], ...] = (
    ((1, 52), EventMessage, _event_of_1_21),
    ((1, 52), Network, _network_without_status),
    ((1, 50), SystemInfo, _info_legacy),
    ((1, 49), SystemInfo, _info_registries),
    ((1, 44), SystemInfo, _info_runtimes),
    ((1, 25), SystemInfo, _info_security_names),
    ((1, 52), ImageInspect, _image_with_empty_fields),
    ((1, 50), ImageInspect, _image_config_of_containers),
    ((1, 48), ImageInspect, _without_descriptor),
    ((1, 45), ImageInspect, _build_container),
    (_EVERY, ImageInspect, _build_config),
    ((1, 44), ImageInspect, _virtual_size),
    ((1, 44), ImageInspect, _image_created),
    ((1, 51), ImageSummary, _without_users),
    ((1, 48), ImageSummary, _without_descriptor),
    ((1, 47), ImageSummary, _without_manifests),
    ((1, 44), ImageSummary, _virtual_size),
    ((1, 43), ImageSummary, _none_tags),
    ((1, 52), ContainerInspect, _bridge_at_the_top),
    ((1, 52), ContainerInspect, _config_on_build),
    ((1, 48), ContainerInspect, _without_manifest),
    ((1, 45), ContainerInspect, _aliases_with_id),
    ((1, 44), ContainerInspect, _config_mac_address),
    ((1, 52), ContainerSummary, _without_health),
    ((1, 48), ContainerSummary, _without_manifest),
    ((1, 46), ContainerSummary, _without_annotations),
)


# --- requests: up to the newest shape -------------------------------------------------------------------------------


def normalize_create(request: ContainerCreateRequest, version: Version) -> list[str]:
    """Change a create request of a `version` client into the newest shape, and return what it is to be warned of.

    InvalidArgument: it uses what only other versions have.
    """
    for below, change in _CREATE_REQUESTS:
        if version < below:
            change(request)
    if version >= (1, 42):
        _check_mount_options(request)
        request.host_config.kernel_memory = 0
    warnings = _mac_address(request, version)
    if version >= (1, 52):
        request.host_config.kernel_memory_tcp = 0
    return warnings + _empty_port_bindings(request, version)


def normalize_update(request: ContainerUpdateRequest, version: Version) -> None:
    """Drop from an update what `version` knew and did not do. Docker's history of versions, 1.40, 1.42, 1.52, 1.55"""
    if version < (1, 40):
        request.pids_limit = None
    if version >= (1, 42):
        request.kernel_memory = 0
    if version >= (1, 52):
        request.kernel_memory_tcp = 0
    if version < (1, 55):
        request.blkio_weight_device = None
        request.blkio_device_read_bps = request.blkio_device_write_bps = None
        request.blkio_device_read_iops = request.blkio_device_write_iops = None


def _mac_address(request: ContainerCreateRequest, version: Version) -> list[str]:
    """Move the container-wide `MacAddress` (deprecated with 1.44, gone with 1.52) to the endpoint it is meant for."""
    if not request.mac_address:
        return []
    if version >= (1, 52):
        raise InvalidArgument(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address instead"
        )
    _endpoint_mac_address(request)
    if version < (1, 44):
        return []
    return ["The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."]


def _endpoint_mac_address(request: ContainerCreateRequest) -> None:
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


def _empty_port_bindings(request: ContainerCreateRequest, version: Version) -> list[str]:
    """A port with an empty list of bindings gets one to a port of the engine's choice, as it always did."""
    empty = [port for port, bindings in (request.host_config.port_bindings or {}).items() if not bindings]
    for port in empty:
        request.host_config.port_bindings[port] = [PortBinding()]  # type: ignore[index]
    if not empty or version < (1, 52):
        return []
    return [
        f"Following container port(s) have an empty list of port-bindings: {', '.join(empty)}. "
        "Such bindings will be discarded in a future version."
    ]


def _check_mount_options(request: ContainerCreateRequest) -> None:
    for mount in request.host_config.mounts or []:
        for kind, options in (
            ("volume", mount.volume_options),
            ("bind", mount.bind_options),
            ("tmpfs", mount.tmpfs_options),
        ):
            if options is not None and mount.type != kind:
                raise InvalidArgument(f'{kind.capitalize()}Options must not be specified on mount type "{mount.type}"')


def _without_gateway_priority(request: ContainerCreateRequest) -> None:
    for endpoint in (request.networking_config.endpoints_config or {}).values():
        endpoint.gw_priority = 0
    for mount in request.host_config.mounts or []:
        if mount.type == "image":
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')


def _without_subpath(request: ContainerCreateRequest) -> None:
    for mount in request.host_config.mounts or []:
        if mount.volume_options is not None and mount.volume_options.subpath:
            raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")


def _as_of_1_43(request: ContainerCreateRequest) -> None:
    """One network at create, no interval of its own while a health check's container starts."""
    if request.healthcheck is not None:
        request.healthcheck.start_interval = 0
    for mount in request.host_config.mounts or []:
        if mount.bind_options is not None and mount.bind_options.read_only_force_recursive:
            raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        if mount.type == "bind" and mount.read_only:  # it did not reach down to the mounts below it
            mount.bind_options = mount.bind_options or BindOptions()
            mount.bind_options.read_only_non_recursive = True
    endpoints = request.networking_config.endpoints_config or {}
    if len(endpoints) > 1:
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}")
    for endpoint in endpoints.values():
        endpoint.mac_address = ""


def _without_annotations_asked(request: ContainerCreateRequest) -> None:
    request.host_config.annotations = None


def _as_of_1_41(request: ContainerCreateRequest) -> None:
    """Options that clients of the time sent without effect."""
    request.host_config.console_size = (0, 0)
    for mount in request.host_config.mounts or []:
        if mount.bind_options is not None:
            mount.bind_options.create_mountpoint = False
        if mount.type != "volume":
            mount.volume_options = None
        if mount.type != "tmpfs":
            mount.tmpfs_options = None


def _ipc_shareable(request: ContainerCreateRequest) -> None:
    request.host_config.ipc_mode = request.host_config.ipc_mode or "shareable"
    for mount in request.host_config.mounts or []:
        if mount.bind_options is not None:
            mount.bind_options.non_recursive = False


# Below which version a create request is changed how.
_CREATE_REQUESTS: tuple[tuple[Version, Callable[[ContainerCreateRequest], None]], ...] = (
    ((1, 48), _without_gateway_priority),
    ((1, 45), _without_subpath),
    ((1, 44), _as_of_1_43),
    ((1, 43), _without_annotations_asked),
    ((1, 42), _as_of_1_41),
    ((1, 40), _ipc_shareable),
)
