"""`--log-opt tag`: a Go template over what is known of the container. moby, logger.Info"""

from __future__ import annotations

import socket

from naru.engine.clock import rfc3339
from naru.engine.container import Container
from naru.errors import InvalidArgument

DEFAULT_TAG = "{{.ID}}"

_DAEMON_NAME = "naru"


def log_tag(container: Container, template: str) -> str:
    """Return the tag that `template` (or the default one) makes. InvalidArgument: it is wrong, in Go's words."""
    from naru.template.template import Template, TemplateError  # only tags need it
    from naru.template.values import Row

    class Info(Row):
        kind = "*logger.Info"

    try:
        return Template(template or DEFAULT_TAG).render(Info(_values(container)))
    except TemplateError as error:
        raise InvalidArgument(f"failed to initialize logging driver: {error}") from error


def _values(container: Container) -> dict[str, object]:
    config = container.config
    command = [*(config.entrypoint or []), *(config.cmd or [])]
    return {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": container.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": container.image_id,
        "ImageName": config.image,
        "Command": " ".join(command),
        "Hostname": socket.gethostname(),
        "DaemonName": _DAEMON_NAME,
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": command[0] if command else "",
        "ContainerArgs": command[1:],
        "ContainerImageID": container.image_id,
        "ContainerImageName": config.image,
        "ContainerCreated": rfc3339(container.created_at),
        "ContainerEnv": list(config.env or []),
        "ContainerLabels": dict(config.labels or {}),
        "Config": dict(container.host_config.log_config.config or {}),
    }
