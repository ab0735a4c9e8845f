"""Extra processes in a container. Engine API, Exec."""

from __future__ import annotations

from naru.api.wire import Wire, always, made, named


class ExecCreateRequest(Wire):
    """`console_size` is height, then width."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: list[str] | None = None


class ExecCreateResponse(Wire):
    id: str = always("")


class ExecStartRequest(Wire):
    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


class ProcessConfig(Wire):
    tty: bool = always(False, name="tty")
    entrypoint: str = always("", name="entrypoint")
    arguments: list[str] | None = always(None, name="arguments")
    privileged: bool | None = named(None, "privileged")
    user: str = named("", "user")


class ExecInspect(Wire):
    """`exit_code` is None until it has run."""

    id: str = always("", name="ID")
    running: bool = always(False)
    exit_code: int | None = always(None)
    process_config: ProcessConfig = made(ProcessConfig)
    open_stdin: bool = always(False)
    open_stderr: bool = always(False)
    open_stdout: bool = always(False)
    can_remove: bool = always(False)
    container_id: str = always("")
    detach_keys: str = always("")
    pid: int = always(0)
