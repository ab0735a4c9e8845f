"""Health checks, through the docker CLI."""

from __future__ import annotations

import json
import time

import pytest
from daemon import Daemon, wait_until

pytestmark = pytest.mark.root

FAST = ["--health-interval", "50ms", "--health-retries", "2", "--health-timeout", "2s"]


def _health(narud: Daemon) -> dict[str, object]:
    found: dict[str, object] = json.loads(narud("inspect", "--format", "{{json .State.Health}}", "box"))
    return found


def test_a_container_is_starting_then_healthy_and_unhealthy_when_its_check_fails_often_enough(narud: Daemon) -> None:
    check = "test -e /ok && echo fine"
    narud("run", "-d", "--name", "box", *FAST, "--health-cmd", check, "busybox", "sh", "-c", "touch /ok; sleep 1000")
    wait_until(lambda: _health(narud)["Status"] == "healthy")
    assert "(healthy)" in narud("ps", "--format", "{{.Status}}")
    assert narud("ps", "-q", "--filter", "health=healthy") != ""
    narud("exec", "box", "rm", "/ok")
    wait_until(lambda: _health(narud)["Status"] == "unhealthy")
    assert int(str(_health(narud)["FailingStreak"])) >= 2
    assert narud("ps", "-q", "--filter", "health=healthy") == ""
    events = narud(
        "events", "--since", "1m", "--until", str(int(time.time()) + 1), "--format", "{{.Action}}"
    ).splitlines()
    assert [action for action in events if "health" in action] == ["health_status: healthy", "health_status: unhealthy"]


def test_a_check_that_takes_too_long_is_killed_and_counts_as_failed(narud: Daemon) -> None:
    options = ["--health-interval", "50ms", "--health-timeout", "100ms", "--health-retries", "1"]
    narud("run", "-d", "--name", "box", *options, "--health-cmd", "sleep 777", "busybox", "sleep", "1000")
    wait_until(lambda: _health(narud)["Status"] == "unhealthy")
    first = _health(narud)["Log"][0]  # type: ignore[index]
    assert first["ExitCode"] == -1
    assert "exceeded timeout" in first["Output"]
    narud("stop", "-t", "0", "box")


def test_without_a_check_there_is_no_health(narud: Daemon) -> None:
    narud("run", "-d", "--name", "box", "--no-healthcheck", "busybox", "sleep", "1000")
    assert _health(narud) is None
