"""`naru login` and `logout`: credentials for registries."""

from __future__ import annotations

import sys

from naru.cli.command import Call, Command, complain
from naru.cli.config_file import DOCKER_HUB
from naru.cli.flags import BOOL, STRING, Flag
from naru.errors import InvalidArgument


def login(call: Call) -> None:
    """Ask for what is missing, have the daemon try it, keep it."""
    flags = call.flags
    server = _server(call)
    user, password = flags.text("username"), flags.text("password")
    if flags.given("password"):
        complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if flags.on("password-stdin"):
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
    if flags.on("password-stdin"):
        if not user:
            raise InvalidArgument("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    if not user or not password:
        user, password = _ask(user, password)
    credential = {"username": user, "password": password, "serveraddress": server}
    answer = call.client.post("/auth", None, credential) or {}
    if answer.get("IdentityToken"):
        credential = {"username": user, "identitytoken": answer["IdentityToken"], "serveraddress": server}
    helper = call.config.store(server, credential)
    if not helper:
        complain(
            f"\nWARNING! Your credentials are stored unencrypted in '{call.config.path}'.\n"
            "Configure a credential helper to remove this warning.\n"
        )
    print(answer.get("Status") or "Login Succeeded")


def _ask(user: str, password: str) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise InvalidArgument("Error: Cannot perform an interactive login from a non TTY device")
    from getpass import getpass

    if not user:
        print("Username: ", end="", flush=True)
        user = sys.stdin.readline().strip()
    if not user:
        raise InvalidArgument("Error: Non-null Username Required")
    password = password or getpass("Password: ")
    if not password:
        raise InvalidArgument("Error: Password Required")
    return user, password


def logout(call: Call) -> None:
    """Forget the credential."""
    server = _server(call)
    shown = server if call.arguments else DOCKER_HUB
    print(f"Removing login credentials for {shown}")
    call.config.forget(server)


def _server(call: Call) -> str:
    asked = call.arguments[0] if call.arguments else ""
    if asked in ("", "docker.io", "index.docker.io", "registry-1.docker.io"):
        return DOCKER_HUB
    return asked.removeprefix("https://").removeprefix("http://").rstrip("/") if "/v1" not in asked else asked


COMMANDS = (
    Command(
        "login",
        "[OPTIONS] [SERVER]",
        "Store credentials for a registry, after the daemon has tried them.",
        login,
        (
            Flag("password", "p", STRING, "Password or token; better: --password-stdin"),
            Flag("password-stdin", "", BOOL, "Read the password from standard input"),
            Flag("username", "u", STRING, "User name"),
        ),
        count=(0, 1),
    ),
    Command("logout", "[SERVER]", "Forget the credentials for a registry.", logout, count=(0, 1)),
)
