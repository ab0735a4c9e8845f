"""`--gpus` and `--device vendor/class=name`: requests for devices by what they are, served through CDI.

Without a driver's name a request for `gpu` goes to the vendor whose devices this host has CDI files for. Where there
is none, Docker's words. Engine API, DeviceRequest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naru.api.host import DeviceRequest
from naru.engine import cdi
from naru.errors import InvalidArgument
from naru.oci import runtime as oci

_GPU_KINDS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}


def check(requests: Sequence[DeviceRequest]) -> None:
    """Refuse requests that nothing here can serve. InvalidArgument in Docker's words."""
    _edits(requests)


def apply(spec: oci.Spec, requests: Sequence[DeviceRequest]) -> None:
    """Give a container's spec the devices it asked for. InvalidArgument: they are not there (any more)."""
    for edits in _edits(requests):
        cdi.apply(spec, edits)


def _edits(requests: Sequence[DeviceRequest]) -> list[cdi.Edits]:
    if not requests:
        return []
    known = cdi.registry()
    return cdi.resolve([name for request in requests for name in _names(request, known)], known)


def _names(request: DeviceRequest, known: Mapping[str, cdi.Found]) -> list[str]:
    if request.driver == "cdi":
        return list(request.device_ids or [])
    if request.count and request.device_ids:
        raise InvalidArgument("cannot set both Count and DeviceIDs on device request")
    kind = _kind(request, known)
    if request.device_ids:
        return [f"{kind}={identifier}" for identifier in request.device_ids]
    if request.count > 0:
        return [f"{kind}={number}" for number in range(request.count)]
    if f"{kind}=all" in known:
        return [f"{kind}=all"]
    return [name for name in known if name.startswith(f"{kind}=")]


def _kind(request: DeviceRequest, known: Mapping[str, cdi.Found]) -> str:
    """The CDI kind whose devices serve a request: of one of its lists all capabilities, "gpu" among them."""
    for vendor, kind in _GPU_KINDS.items():
        others = _GPU_KINDS.keys() - {vendor}
        can = any("gpu" in words and not others & {*words} for words in request.capabilities or [])
        if (can if not request.driver else request.driver == vendor) and any(
            name.startswith(f"{kind}=") for name in known
        ):
            return kind
    lists = " ".join(f"[{' '.join(words)}]" for words in request.capabilities or [])
    raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: [{lists}]')
