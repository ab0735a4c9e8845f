"""`naru context`: names for daemons, shared with the Docker CLI, and which of them commands talk to."""

from __future__ import annotations

import json
import os

from naru.cli.command import Call, Command, complain
from naru.cli.context_store import (
    DEFAULT,
    DEFAULT_DESCRIPTION,
    ENDPOINT,
    HOST_VARIABLES,
    TLS_FILES,
    Context,
    ContextStore,
    check_name,
)
from naru.cli.flags import BOOL, STRING, STRING_TO_STRING, Flag
from naru.cli.ps import FORMAT
from naru.cli.table import print_rows, print_value, shortened
from naru.errors import Conflict, InvalidArgument, NaruError, NotFound
from naru.template.values import Row, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "DockerEndpoint": "DOCKER ENDPOINT",
    "Error": "ERROR",
    "Current": "CURRENT",
}
_KEYS = ("from", "host", *TLS_FILES, "skip-tls-verify")
_IN_MEMORY = "<IN MEMORY>"


class ContextRow(Row):
    """One context in the list."""

    kind = "*formatter.clientContextContext"

    def cell(self, field: str) -> str:
        """Return the field as the table shows it: the current context is marked."""
        text = super().cell(field)
        return f"{text} *" if field == "Name" and self["Current"] else text


def _store(call: Call) -> ContextStore:
    return ContextStore(call.config_directory)


def _default(call: Call) -> Context:
    """Return the context that the environment makes."""
    meta = {
        "Name": DEFAULT,
        "Metadata": {},
        "Endpoints": {ENDPOINT: {"Host": call.default_address.text, "SkipTLSVerify": False}},
    }
    return Context(meta, {})


def _get(call: Call, name: str) -> Context:
    return _default(call) if name == DEFAULT else _store(call).get(name)


def list_(call: Call) -> None:
    """List contexts by name, the current one marked."""
    current = call.context
    rows = []
    names = [*_store(call).names(), DEFAULT]
    for name in sorted({*names, current}):
        error = description = host = ""
        try:
            context = _get(call, name)
            description = DEFAULT_DESCRIPTION if name == DEFAULT else context.description
            host = str(context.endpoint.get("Host", ""))
        except NaruError as failure:
            error = str(failure)
        rows.append(
            ContextRow(
                Name=name,
                Description=description,
                DockerEndpoint=host,
                Error=shortened(error, 45),
                Current=name == current,
            )
        )
    if call.flags.on("quiet"):
        for row in rows:
            print(row["Name"])
    else:
        print_rows(rows, _HEADERS, ["Name", "Description", "DockerEndpoint", "Error"], call.flags.text("format"))
    _warn(call, "a context")


def _warn(call: Call, what: str) -> None:
    for name in HOST_VARIABLES:
        if call.environment.get(name):
            complain(
                f"Warning: {name} environment variable overrides the active context. To use {what}, either set the "
                f"global --context flag, or unset {name} environment variable."
            )


def show(call: Call) -> None:
    """Print the current context's name."""
    print(call.context)


def use(call: Call) -> None:
    """Make a context the current one."""
    name = call.arguments[0]
    if name != DEFAULT:
        _store(call).get(name)
    call.config.set("currentContext", "" if name == DEFAULT else name)
    print(name)
    complain(f'Current context is now "{name}"')
    if name != DEFAULT:
        _warn(call, f'"{name}"')


def create(call: Call) -> None:
    """Create a context, of its flags or of another context."""
    store, name, flags = _store(call), call.arguments[0], call.flags
    check_name(name)
    if name in store.names():
        raise Conflict(f'context "{name}" already exists')
    if flags.given("docker"):
        if flags.given("from"):
            raise InvalidArgument("cannot use --docker flag when --from is set")
        endpoint, tls = _endpoint(call, "create")
        metadata: dict[str, str] = {}
    else:
        source = _get(call, flags.text("from") or call.context)
        endpoint, tls = source.endpoint, source.tls
        metadata = {"Description": DEFAULT_DESCRIPTION if source.name == DEFAULT else source.description}
        metadata = {key: value for key, value in metadata.items() if value}
    if flags.text("description"):
        metadata["Description"] = flags.text("description")
    store.put(Context({"Name": name, "Metadata": metadata, "Endpoints": {ENDPOINT: endpoint}}, tls))
    print(name)
    complain(f'Successfully created context "{name}"')


def update(call: Call) -> None:
    """Change a context's description or endpoint."""
    name, flags = call.arguments[0], call.flags
    check_name(name)
    context = _store(call).get(name)
    if flags.text("description"):
        context.meta["Metadata"] = {**(context.meta.get("Metadata") or {}), "Description": flags.text("description")}
    if flags.given("docker"):
        endpoint, context.tls = _endpoint(call, "update")
        context.meta["Endpoints"] = {ENDPOINT: endpoint}
    _store(call).put(context)
    print(name)
    complain(f'Successfully updated context "{name}"')


def _endpoint(call: Call, verb: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return endpoint and TLS files as --docker describes them."""
    options = call.flags.map("docker")
    try:
        for key in options:
            if key not in _KEYS:
                raise InvalidArgument(f"unrecognized config key: {key}")
        if "from" in options:
            source = _get(call, options["from"])
            return source.endpoint, source.tls
        endpoint: dict[str, Any] = {"Host": options["host"]} if options.get("host") else {}
        skips = options.get("skip-tls-verify", "").lower()
        endpoint["SkipTLSVerify"] = skips in ("1", "t", "true")
        tls = {one: _read(options[one]) for one in TLS_FILES if options.get(one)}
        _check(endpoint, options)
    except NaruError as error:
        raise InvalidArgument(f"unable to {verb} docker endpoint config: {error}") from None
    return endpoint, tls


def _check(endpoint: dict[str, Any], options: dict[str, str]) -> None:
    """Raise InvalidArgument for a host or TLS files that no connection could be made with."""
    from naru.client.address import Tls, resolve

    try:
        address = resolve(str(endpoint.get("Host", "")), {})
    except NaruError as error:
        raise InvalidArgument(f"unable to apply docker endpoint options: {error}") from None
    if endpoint.get("Host") and address.host and any(options.get(one) for one in TLS_FILES):
        from naru.client.tls import context

        files = {one: options.get(one, "") for one in TLS_FILES}
        tls = Tls(authority=files["ca"], certificate=files["cert"], key=files["key"], is_verified=bool(files["ca"]))
        try:
            context(tls)
        except NaruError as error:
            raise InvalidArgument(f"invalid docker endpoint options: {error}") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None


def remove(call: Call) -> int:
    """Remove contexts; the current one only by force, and then the default is."""
    is_forced = call.flags.on("force")
    names = _store(call).names()
    failed = []
    for name in call.arguments:
        if name == DEFAULT:
            failed.append(f'context "{DEFAULT}" cannot be removed')
        elif name not in names:
            if not is_forced:
                failed.append(f'context "{name}" does not exist')
                continue
            print(name)
        elif name == call.context and not is_forced:
            failed.append(f'context "{name}" is in use, set -f flag to force remove')
        else:
            if name == call.config.text("currentContext"):
                call.config.set("currentContext", "")
            _store(call).remove(name)
            print(name)
    for text in failed:
        complain(text)
    return 1 if failed else 0


def inspect(call: Call) -> int:
    """Show everything about contexts; the current one if none is named."""
    found: list[Struct] = []
    failure: NaruError | None = None
    for name in call.arguments or [call.context]:
        try:
            found.append(_document(call, name))
        except NotFound as error:
            failure = error
            break
    form = call.flags.text("format")
    if form:
        for document in found:
            print_value(document, form)
        if not found:
            print()
    else:
        text = json.dumps(found, ensure_ascii=False, indent=4)
        print(text.replace("<", "\\u003c").replace(">", "\\u003e"))
    if failure is not None:
        complain(str(failure))
    return 1 if failure is not None else 0


def _document(call: Call, name: str) -> Struct:
    context, store = _get(call, name), _store(call)
    is_default = name == DEFAULT
    files = [f"{one}.pem" for one in TLS_FILES if one in context.tls]
    storage = {
        "MetadataPath": _IN_MEMORY if is_default else store.meta_path(name),
        "TLSPath": _IN_MEMORY if is_default else store.tls_path(name),
    }
    endpoints = {kind: Struct(endpoint) for kind, endpoint in (context.meta.get("Endpoints") or {}).items()}
    return Struct(
        {
            "Name": name,
            "Metadata": context.meta.get("Metadata") or {},
            "Endpoints": endpoints,
            "TLSMaterial": {ENDPOINT: files} if files else {},
            "Storage": Struct(storage),
        }
    )


def export(call: Call) -> None:
    """Write a context as a tar archive."""
    import sys
    import tarfile
    from io import BytesIO

    name, *target = call.arguments
    context = _get(call, name)
    path = target[0] if target else f"{name}.dockercontext"
    if path == "-" and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to export to a terminal, specify a file path")
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:

        def add(member: str, data: bytes | None) -> None:
            info = tarfile.TarInfo(member)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size, info.mode = len(data or b""), 0o700 if data is None else 0o600
            archive.addfile(info, BytesIO(data or b""))

        add("meta.json", json.dumps(context.meta, separators=(",", ":"), ensure_ascii=False).encode())
        add("tls", None)
        if context.tls:
            add(f"tls/{ENDPOINT}", None)
        for one, data in context.tls.items():
            add(f"tls/{ENDPOINT}/{one}.pem", data)
    if path == "-":
        sys.stdout.buffer.write(packed.getvalue())
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(packed.getvalue())
    complain(f'Written file "{path}"')


def import_(call: Call) -> None:
    """Create a context of an exported one: a tar archive, or a zip archive of the same files."""
    import sys

    name, path = call.arguments
    check_name(name)
    if name in _store(call).names():
        raise Conflict(f'context "{name}" already exists')
    files = _unpacked(sys.stdin.buffer.read() if path == "-" else _read(path))
    try:
        meta = json.loads(files["meta.json"])
        meta["Name"] = name
    except KeyError:
        raise InvalidArgument("invalid context: no metadata found") from None
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"invalid context: {error}") from None
    tls = {one: files[member] for one in TLS_FILES if (member := f"tls/{ENDPOINT}/{one}.pem") in files}
    _store(call).put(Context(meta, tls))
    print(name)
    complain(f'Successfully imported context "{name}"')


def _unpacked(packed: bytes) -> dict[str, bytes]:
    """Return the archive's files by name; what else it holds is of no use, wherever it would go."""
    import tarfile
    import zipfile
    from io import BytesIO

    try:
        if packed.startswith(b"PK"):
            with zipfile.ZipFile(BytesIO(packed)) as zipped:
                return {info.filename: zipped.read(info) for info in zipped.infolist() if not info.is_dir()}
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            members = [member for member in archive if member.isreg()]
            return {member.name: file.read() for member in members if (file := archive.extractfile(member))}
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InvalidArgument(f"invalid context: {error}") from None


_DESCRIPTION = Flag("description", "", STRING, "What it is, for people")
_DOCKER = Flag("docker", "", STRING_TO_STRING, "The daemon (host=tcp://web:2376,ca=ca.pem,cert=cert.pem,key=key.pem)")
_KEYS_TEXT = (
    " --docker takes host, ca, cert, key, skip-tls-verify, and from: the name of a context to take the rest from."
)
COMMANDS = (
    Command(
        "context create",
        "[OPTIONS] CONTEXT",
        "Name a daemon: the current one, or the one described." + _KEYS_TEXT,
        create,
        (_DESCRIPTION, _DOCKER, Flag("from", "", STRING, "Context to copy")),
        count=(1, 1),
    ),
    Command(
        "context export",
        "[OPTIONS] CONTEXT [FILE|-]",
        "Write a context, its keys included, to CONTEXT.dockercontext, a file, or standard output.",
        export,
        count=(1, 2),
    ),
    Command(
        "context import",
        "CONTEXT FILE|-",
        "Create a context of an exported one, from a tar or zip file or standard input.",
        import_,
        count=(2, 2),
    ),
    Command(
        "context inspect",
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Show everything about contexts; the current one if none is named.",
        inspect,
        (Flag("format", "f", STRING, "json, or a Go TEMPLATE ('{{.Endpoints.docker.Host}}')"),),
        count=(0, None),
    ),
    Command(
        "context ls",
        "[OPTIONS]",
        "List contexts; the current one has a star.",
        list_,
        (FORMAT, Flag("quiet", "q", BOOL, "Only names")),
    ),
    Command(
        "context rm",
        "CONTEXT [CONTEXT...]",
        "Remove contexts.",
        remove,
        (Flag("force", "f", BOOL, "Even the current one, and no error for one that does not exist"),),
        count=(1, None),
    ),
    Command("context show", "", "Print the name of the current context.", show),
    Command(
        "context update",
        "[OPTIONS] CONTEXT",
        "Change what a context says." + _KEYS_TEXT,
        update,
        (_DESCRIPTION, _DOCKER),
        count=(1, 1),
    ),
    Command(
        "context use",
        "CONTEXT",
        "Talk to this context's daemon from now on; `default` for what the environment says.",
        use,
        count=(1, 1),
    ),
)
