"""`naru version` and `naru info`."""

from __future__ import annotations

import os
import sys

import naru
from naru.cli import units
from naru.cli.command import Call, Command, complain
from naru.cli.flags import STRING, Flag
from naru.cli.table import NotATemplate, parsed, print_value
from naru.client.connection import API_VERSION
from naru.errors import InvalidArgument, NaruError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def version(call: Call) -> int:
    """Print the versions of both sides; the client's even if there is no daemon."""
    form = call.flags.text("format")
    failure: NaruError | None = None
    server: dict[str, Any] | None = None
    try:
        server = call.client.get("/version")
        for component in server.get("Components") or ():
            details = component.get("Details") or {}
            if details.get("BuildTime"):
                details["BuildTime"] = units.calendar_time(details["BuildTime"])
    except NaruError as error:
        failure = error
    newest = f"{API_VERSION[0]}.{API_VERSION[1]}"
    machine = os.uname().machine
    client = {
        "Version": naru.__version__,
        "ApiVersion": call.client.version if server else newest,
        "DefaultAPIVersion": newest,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "BuildTime": "",
        "Context": call.context,
    }
    if form:
        from naru.cli.documents import document

        sent = {"Client": client, "Server": server}
        try:
            print_value(document("Version", sent, kind="system.versionInfo"), form)
        except InvalidArgument as error:
            if failure is None or isinstance(error, NotATemplate):
                raise
            print()  # the daemon's side is asked for, and there is none: the reason follows
    else:
        print(_client_text(client) + (_server_text(server) if server else ""), end="")
    if failure is not None:
        complain(str(failure))
        if failure.hint:
            complain(f"hint: {failure.hint}")
    return 1 if failure else 0


def _client_text(client: dict[str, Any]) -> str:
    api, newest = client["ApiVersion"], client["DefaultAPIVersion"]
    shown = {
        "Version": client["Version"],
        "API version": api if api == newest else f"{api} (downgraded from {newest})",
        "Python version": client["PythonVersion"],
        "OS/Arch": f"{client['Os']}/{client['Arch']}",
        "Context": client["Context"],
    }
    return "Client:\n" + "".join(f" {name + ':':<18} {value}\n" for name, value in shown.items())


def _server_text(server: dict[str, Any]) -> str:
    platform = (server.get("Platform") or {}).get("Name", "")
    lines = ["", f"Server: {platform}".rstrip()]
    labels = {
        "ApiVersion": "API version",
        "GoVersion": "Go version",
        "GitCommit": "Git commit",
        "BuildTime": "Built",
        "Os": "OS/Arch",
        "Experimental": "Experimental",
    }
    for component in server.get("Components") or ():
        details = component.get("Details") or {}
        lines += [f" {component['Name']}:", f"  {'Version:':<17} {component['Version']}"]
        for key, label in labels.items():
            value = details.get(key, "")
            if key == "ApiVersion" and value:
                value += f" (minimum version {details.get('MinAPIVersion', '')})"
            if key == "Os" and value:
                value += f"/{details.get('Arch', '')}"
            if value:
                lines.append(f"  {label + ':':<17} {value}")
    return "\n".join([*lines, ""])


def info(call: Call) -> int:
    """Print what the daemon says of itself and its host."""
    form = call.flags.text("format")
    if form:
        parsed(form)  # before anything is asked for
    failure: NaruError | None = None
    try:
        found = call.client.get("/info")
    except NaruError as error:
        failure = error
    client = {"Version": naru.__version__, "Context": call.context, "Debug": False, "Plugins": [], "Warnings": None}
    if form:
        if failure is not None:
            print()
            raise failure
        from naru.cli.documents import document

        print_value(document("Info", {**found, "ClientInfo": client}, kind="system.dockerInfo"), form, prefix="")
        return 0
    print(f"Client:\n Version:    {naru.__version__}\n Context:    {call.context}\n Debug Mode: false\n\nServer:")
    if failure is not None:
        raise failure
    for line in _info_lines(found):
        print(line)
    print()
    for warning in found.get("Warnings") or ():
        complain(warning)
    return 0


def _info_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f" Containers: {found['Containers']}",
        f"  Running: {found['ContainersRunning']}",
        f"  Paused: {found['ContainersPaused']}",
        f"  Stopped: {found['ContainersStopped']}",
        f" Images: {found['Images']}",
        f" Server Version: {found['ServerVersion']}",
        f" Storage Driver: {found['Driver']}",
        *(f"  {name}: {value}" for name, value in found.get("DriverStatus") or ()),
        f" Logging Driver: {found['LoggingDriver']}",
        f" Cgroup Driver: {found['CgroupDriver']}",
        f" Cgroup Version: {found.get('CgroupVersion', '1')}",
        " Plugins:",
        *(f"  {name}: {' '.join(sorted(values))}" for name, values in _plugins(found)),
        f" Swarm: {(found.get('Swarm') or {}).get('LocalNodeState', 'inactive')}",
        f" Runtimes: {' '.join(sorted(found.get('Runtimes') or ()))}",
        f" Default Runtime: {found.get('DefaultRuntime', '')}",
    ]
    lines.append(f" Init Binary: {found.get('InitBinary', '')}")
    for label, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        lines.append(f" {label} version: {(found.get(key) or {}).get('ID', '')}")
    if found.get("SecurityOptions"):
        lines.append(" Security Options:")
        for option in found["SecurityOptions"]:
            fields = dict(field.partition("=")[::2] for field in option.split(","))
            lines.append(f"  {fields.pop('name', option)}")
            lines += [f"   {name.capitalize()}: {value}" for name, value in fields.items()]
    lines += [
        f" Kernel Version: {found['KernelVersion']}",
        f" Operating System: {found['OperatingSystem']}",
        f" OSType: {found['OSType']}",
        f" Architecture: {found['Architecture']}",
        f" CPUs: {found['NCPU']}",
        f" Total Memory: {units.human_binary_size(found['MemTotal'])}",
        f" Name: {found['Name']}",
        f" ID: {found['ID']}",
        f" Docker Root Dir: {found['DockerRootDir']}",
        f" Debug Mode: {str(found.get('Debug', False)).lower()}",
    ]
    for label, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if found.get(key):
            lines.append(f" {label}: {found[key]}")
    if found.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in found["Labels"])]
    lines.append(f" Experimental: {str(found.get('ExperimentalBuild', False)).lower()}")
    registries = found.get("RegistryConfig") or {}
    insecure = [name for name, one in (registries.get("IndexConfigs") or {}).items() if not one.get("Secure")]
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in registries["Mirrors"])]
    lines.append(f" Live Restore Enabled: {str(found.get('LiveRestoreEnabled', False)).lower()}")
    return lines


def _plugins(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    plugins = found.get("Plugins") or {}
    return [(name, plugins[name]) for name in ("Volume", "Network", "Authorization", "Log") if plugins.get(name)]


_FORMAT = Flag("format", "f", STRING, "json, or a Go TEMPLATE ('{{.Server.Version}}')")
COMMANDS = (
    Command("version", "[OPTIONS]", "Show the versions of client and daemon.", version, (_FORMAT,)),
    Command("system info", "[OPTIONS]", "Show the daemon and its host.", info, (_FORMAT,)),
)
