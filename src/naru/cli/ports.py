"""Port flags: `--publish` and `--expose` to the API's port bindings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from naru.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    Bindings = dict[str, list[dict[str, str]]]


def publish(specs: Sequence[str]) -> Bindings:
    """Return `{"80/tcp": [{"HostIp": …, "HostPort": …}]}` for `[[ip:]host:]container[/protocol]`, ranges included."""
    bindings: Bindings = {}
    for spec in specs:
        for port, host_ip, host_port in _long(spec) if "=" in spec else _short(spec):
            bindings.setdefault(port, []).append({"HostIp": host_ip, "HostPort": host_port})
    return bindings


def expose(specs: Sequence[str]) -> list[str]:
    """Return `80/tcp` for each port of `80`, `80/udp`, `80-90`."""
    found = []
    for spec in specs:
        if ":" in spec:
            raise InvalidArgument(f"invalid port format for --expose: {spec}")
        ports, protocol = _protocol(spec)
        try:
            first, last = _range(ports)
        except ValueError as error:
            raise InvalidArgument(f"invalid range format for --expose: {ports}, error: {error}") from None
        found += [f"{port}/{protocol}" for port in range(first, last + 1)]
    return found


def _short(spec: str) -> Iterator[tuple[str, str, str]]:
    body, protocol = _protocol(spec)
    address, colon, container = body.rpartition(":")
    host_ip, host = "", ""
    if colon:
        host_ip, _, host = address.rpartition(":")
    yield from _bind(host_ip, host, container, protocol)


def _long(spec: str) -> Iterator[tuple[str, str, str]]:
    values = {"protocol": "tcp", "published": "", "target": "", "mode": ""}
    for field in spec.split(","):
        key, _, value = field.partition("=")
        if key not in values:
            raise InvalidArgument(f"invalid field key: {key}")
        values[key] = value
    yield from _bind("", values["published"], values["target"], values["protocol"])


def _bind(host_ip: str, host: str, container: str, protocol: str) -> Iterator[tuple[str, str, str]]:
    host_ip = _address(host_ip)
    if not container:
        raise InvalidArgument("no port specified: " + (f"{host}:{container}" if host else "<empty>"))
    first, last = _checked(container, "invalid containerPort: ")
    if not host:
        for port in range(first, last + 1):
            yield f"{port}/{protocol}", host_ip, ""
        return
    host_first, host_last = _checked(host, "invalid hostPort: ")
    if first == last and host_first != host_last:
        yield f"{first}/{protocol}", host_ip, f"{host_first}-{host_last}"
        return
    if last - first != host_last - host_first:
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {container} and {host}")
    for offset in range(last - first + 1):
        yield f"{first + offset}/{protocol}", host_ip, str(host_first + offset)


def _address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare:
        import socket

        try:
            socket.inet_pton(socket.AF_INET6 if ":" in bare else socket.AF_INET, bare.partition("%")[0])
        except OSError:
            raise InvalidArgument(f"invalid IP address: {bare}") from None
    return bare


def _protocol(spec: str) -> tuple[str, str]:
    body, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    return body, protocol


def _checked(text: str, complaint: str) -> tuple[int, int]:
    try:
        return _range(text)
    except ValueError:
        raise InvalidArgument(f"{complaint}{text}") from None


def _range(text: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    for part in (start, end) if dash else (start,):
        if not part.isascii() or not part.isdigit():
            raise ValueError(f'strconv.ParseUint: parsing "{part}": invalid syntax')
        if int(part) > 65535:
            raise ValueError(f'strconv.ParseUint: parsing "{part}": value out of range')
    first = int(start)
    last = int(end) if dash else first
    if last < first:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last
