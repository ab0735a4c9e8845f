"""`--use-api-socket`: the daemon's socket inside a container, and the user's credentials for registries beside it."""

from __future__ import annotations

import json

from naru.cli.command import Call
from naru.cli.tar_stream import stream
from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Any

_SOCKET = "/var/run/docker.sock"
_CONFIG_DIRECTORY = "/run/secrets/docker"


def lend(call: Call, request: dict[str, Any]) -> None:
    """Add the mount of the socket, and the variable that names the credentials, to a request of ContainerCreate."""
    path = call.address.path
    if not path:
        raise InvalidArgument(f"flag --use-api-socket can only be used with a local daemon, not {call.address.text}")
    mounts = request["HostConfig"].get("Mounts") or []
    request["HostConfig"]["Mounts"] = [*mounts, {"Type": "bind", "Source": path, "Target": _SOCKET}]
    if call.config.all_credentials():
        request["Env"] = [*(request["Env"] or ()), f"DOCKER_CONFIG={_CONFIG_DIRECTORY}"]


def put_credentials(call: Call, container: str) -> None:
    """Put the user's credentials into a created container; nothing if there are none."""
    credentials = call.config.all_credentials()
    if not credentials:
        return
    text = json.dumps({"auths": {server: _entry(one) for server, one in credentials.items()}}).encode()

    def write(archive: tarfile.TarFile) -> None:
        import tarfile
        from io import BytesIO

        member = tarfile.TarInfo(f"{_CONFIG_DIRECTORY[1:]}/config.json")
        member.size, member.mode = len(text), 0o600
        archive.addfile(member, BytesIO(text))

    headers = {"Content-Type": "application/x-tar"}
    path = f"/containers/{container}/archive"
    call.client.open("PUT", path, {"path": "/"}, body=stream(write), headers=headers).read()


def _entry(credential: dict[str, str]) -> dict[str, str]:
    from base64 import b64encode

    pair = f"{credential.get('username', '')}:{credential.get('password', '')}"
    entry = {"auth": b64encode(pair.encode()).decode()}
    if token := credential.get("identitytoken"):
        entry["identitytoken"] = token
    return entry
