"""What a command line came to, made comparable.

What is different on every run becomes a word in angle brackets. What differs between the two engines everywhere is
evened out here, with the reason; everything else is listed beside its scenario.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_EACH_RUN = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( [A-Z]{3,4})?", "<time>"),
    (r"(Less than a second|About (a|an) (second|minute|hour)|\d+ (second|minute|hour)s?)( ago)?", "<ago>"),
    (r"\d+ (year|month|week)s ago", "<ago>"),
    (r"(?<=[\":])1[67]\d{8}(\d{9})?\b", "0"),  # seconds, nanoseconds: a number, so that JSON stays JSON
    (r"sha256:[0-9a-f]{12,64}", "<digest>"),
    (r"\b[0-9a-f]{64}\b", "<id>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "<mac>"),
    (r"\b(172\.(1[6-9]|2\d|3[01])|192\.168)\.\d+\.\d+\b", "<address>"),
)

_EACH_ENGINE = (
    # dockerd tells through which programs an error came; naru has none of them.
    (r"(failed to create shim task: )?OCI runtime (create|exec) failed: (.+): unknown", r"\3"),
    (r"runc (create|exec) failed: |((runc create|exec) failed: )?unable to start container process: ", ""),
    # Where newer Docker begins a message in lower case, naru does: container, invalid, cannot, no.
    (r"((?:Error response from daemon|Error): )([A-Z])(?=[a-z])", lambda match: match[1] + match[2].lower()),
    # BuildKit, and newer Docker, always tell the line of a Dockerfile.
    (r"failed to parse Dockerfile: |dockerfile parse error (on )?line \d+: ", ""),
    # Newer Docker names the repository.
    (r"repository name \(\S+\) must be lowercase", "repository name must be lowercase"),
    # The classic builder before Docker 23 prints what a RUN writes to standard error in red.
    (r"\x1b\[\d+m", ""),
    # Newer Docker says in events how long a container ran.
    (r"execDuration=\d+, ", ""),
)

# Lines of a build about the containers of its steps: naru makes none for a step that runs nothing.
_DROPPED = re.compile(
    r" ---> Running in <id>|Removing intermediate container <id>| ---> Removed intermediate.*"
    # What the client of 20.10 adds to an error, or not, as it wins or loses a race against itself.
    r"|time=.*level=error msg=.error waiting for container: context canceled.|See 'docker run --help'\."
)

# Fields, wherever they are.
_FIELDS = {
    "*GraphDriver.*": "the overlay exists in the container's namespaces only",
    "*.Pid": "a number that the kernel chose",
    "*.SandboxKey": "a namespace that no mount holds has another path",
    "*.Runtime": "naru and runc",
    "*.CgroupnsMode": "private, as Docker does on hosts with cgroup version 2",
    "*.KernelMemory": "gone since API 1.42",
    "*.KernelMemoryTCP": "gone since API 1.42",
    "*.ContainerConfig*": "empty in newer Docker",
    "*.Container": "empty in newer Docker",
    "*.DockerVersion": "empty in newer Docker",
    "*.Config.MacAddress": "shown by newer Docker to clients of this version",
    "*.DNSNames": "newer Docker, also to clients of this version",
    "*.GwPriority": "newer Docker, also to clients of this version",
    "*.EnableIPv4": "newer Docker, also to clients of this version",
    "*.execDuration": "newer Docker",
}


@dataclass(frozen=True)
class Outcome:
    """The exit code, and the two streams; on a terminal they are one."""

    code: int | str
    stdout: str
    stderr: str


def stable(text: str, own_paths: dict[str, str]) -> str:
    """Return `text` without what differs on each run or each engine, and without the width of columns."""
    for path, word in own_paths.items():
        text = text.replace(path, word)
    for pattern, word in (*_EACH_RUN, *_EACH_ENGINE):
        text = re.sub(pattern, word, text)
    lines = (re.sub(r" {2,}|\t+", "  ", line.rstrip()) for line in text.splitlines())
    return "\n".join(line for line in lines if not _DROPPED.fullmatch(line.replace("  ", " ")))


def differences(ours: Outcome, theirs: Outcome, *, only_shape: bool) -> dict[str, list[str]]:
    """Return what differs: lines for `code`, `stdout` and `stderr`, or for fields where both printed JSON."""
    found: dict[str, list[str]] = {}
    if ours.code != theirs.code:
        found["code"] = [f"-{theirs.code}", f"+{ours.code}"]
    left, right = _fields(theirs.stdout), _fields(ours.stdout)
    if left is not None and right is not None:
        for path in sorted(left.keys() | right.keys()):
            values = [_told(fields[path], only_shape) if path in fields else "absent" for fields in (left, right)]
            if values[0] != values[1] and not any(fnmatch.fnmatch(path, known) for known in _FIELDS):
                found[path] = [f"-{values[0]}", f"+{values[1]}"]
    elif ours.stdout != theirs.stdout:
        found["stdout"] = _diff(theirs.stdout, ours.stdout)
    if ours.stderr != theirs.stderr:
        found["stderr"] = _diff(theirs.stderr, ours.stderr)
    return found


def is_listed(part: str, listed: str) -> bool:
    """Say whether `part` is what a scenario's line about differences means; there, `*` stands for anything."""
    return fnmatch.fnmatch(part, listed.replace("[", "[[]"))


def _diff(theirs: str, ours: str) -> list[str]:
    lines = difflib.unified_diff(theirs.splitlines(), ours.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:3] not in ("---", "+++", "@@ ")]


def _fields(text: str) -> dict[str, object] | None:
    """Return the leaves of the JSON documents in `text`, one a line or one over all lines, as path and value."""
    try:
        documents = [json.loads(text)]
    except ValueError:
        try:
            documents = [json.loads(line) for line in text.splitlines()]
        except ValueError:
            return None
    if not all(isinstance(document, dict | list) for document in documents):
        return None
    return dict(_leaves("", documents[0] if len(documents) == 1 else documents))


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            # The CLI has no order for `--env`.
            yield from _leaves(f"{path}.{key}", sorted(below) if key == "Env" and below else below)
    elif isinstance(value, list) and value:
        for number, below in enumerate(value):
            yield from _leaves(f"{path}[{number}]", below)
    else:
        yield path, value


def _told(value: object, only_shape: bool) -> str:
    return type(value).__name__ if only_shape else json.dumps(value)
