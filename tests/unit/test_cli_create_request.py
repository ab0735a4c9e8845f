"""The flags of `run` become the request that the Docker CLI would send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from naru.cli.container_flags import RUN_FLAGS
from naru.cli.create_request import create_request
from naru.cli.flags import UsageError, Values
from naru.errors import InvalidArgument


def _request(*arguments: str, mine: dict[str, str] | None = None) -> dict[str, Any]:
    values = Values(RUN_FLAGS)
    image, *command = values.parse([*arguments, "redis"], interspersed=False)
    return create_request(values, image, command, mine or {})


def test_a_plain_run_is_attached_to_its_output_only() -> None:
    request = _request()
    assert (request["AttachStdin"], request["AttachStdout"], request["AttachStderr"]) == (False, True, True)
    assert (request["OpenStdin"], request["StdinOnce"], request["Cmd"]) == (False, False, None)
    assert request["HostConfig"]["NetworkMode"] == "default"
    assert request["NetworkingConfig"] == {"EndpointsConfig": {}}


def test_a_detached_interactive_run_keeps_its_input_open_for_later() -> None:
    request = _request("-dit")
    assert (request["OpenStdin"], request["StdinOnce"], request["AttachStdin"], request["Tty"]) == (
        True, False, False, True,
    )  # fmt: skip


def test_limits_are_sent_in_the_apis_units() -> None:
    host = _request("-m", "64m", "--cpus", "1.5", "--memory-swap", "-1", "--pids-limit", "10")["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["MemorySwap"], host["PidsLimit"]) == (
        64 << 20,
        1_500_000_000,
        -1,
        10,
    )


def test_volumes_are_binds_or_anonymous_and_relative_sources_become_absolute() -> None:
    request = _request("-v", "/data", "-v", "./x:/y:ro", "-v", "vol:/z")
    assert request["Volumes"] == {"/data": {}}
    assert request["HostConfig"]["Binds"] == [f"{Path.cwd()}/x:/y:ro", "vol:/z"]


def test_mounts_carry_the_options_of_their_kind() -> None:
    mounts = _request(
        "--mount", "type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave",
        "--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770",
        "--mount", "source=v,target=/v,volume-nocopy",
    )["HostConfig"]["Mounts"]  # fmt: skip
    assert mounts == [
        {
            "Type": "bind",
            "Source": "/a",
            "Target": "/b",
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rslave"},
        },
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"NoCopy": True}},
    ]


def test_an_address_or_alias_goes_to_the_first_networks_endpoint() -> None:
    request = _request("--network", "front", "--ip", "10.0.0.9", "--network-alias", "db", "--network", "back")
    assert request["HostConfig"]["NetworkMode"] == "front"
    assert request["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["db"]},
        "back": {},
    }


def test_a_health_check_is_a_shell_command_with_times_in_nanoseconds() -> None:
    health = _request("--health-cmd", "ping", "--health-interval", "5s", "--health-retries", "3")["Healthcheck"]
    assert (health["Test"], health["Interval"], health["Retries"]) == (["CMD-SHELL", "ping"], 5_000_000_000, 3)


def test_a_seccomp_profile_is_sent_as_content(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}, indent=2))
    host = _request("--security-opt", f"seccomp={profile}", "--security-opt", "no-new-privileges")["HostConfig"]
    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges"]


def test_devices_limits_and_hosts_are_split_into_their_parts() -> None:
    host = _request(
        "--device", "/dev/fuse:/dev/x:r", "--ulimit", "nofile=1024:2048", "--add-host", "a=1.2.3.4", "--restart",
        "on-failure:3", "--tmpfs", "/t:size=1m", "--gpus", "all",
    )["HostConfig"]  # fmt: skip
    assert host["Devices"] == [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1024, "Hard": 2048}]
    assert host["ExtraHosts"] == ["a:1.2.3.4"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Tmpfs"] == {"/t": "size=1m"}
    assert (host["DeviceRequests"][0]["Count"], host["DeviceRequests"][0]["Capabilities"]) == (-1, [["gpu"]])


def test_variables_come_from_files_first_and_names_alone_from_our_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=from file\nHOME\nUNSET\n")
    request = _request("--env-file", str(file), "-e", "B", "-e", "C=3", mine={"HOME": "/me", "B": "2"})
    assert request["Env"] == ["A=from file", "HOME=/me", "B=2", "C=3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rm", "--restart", "always"], "conflicting options: cannot specify both --restart and --rm"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"),
        (["--network", "a", "--network", "a"], 'network "a" is specified multiple times'),
        (["--env-file", "/nope"], "open /nope: no such file or directory"),
        (
            ["--security-opt", "seccomp=/nope"],
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        (["--restart", "on-failure:x"], "invalid restart policy format: maximum retry count must be an integer"),
    ],
)
def test_flags_that_cannot_be_together_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        _request(*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "arguments", [["--mount", "type=bind,src=/a"], ["--ulimit", "nofile"], ["--add-host", "x"], ["-a", "foo"]]
)
def test_values_that_make_no_sense_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="invalid argument"):
        _request(*arguments)
