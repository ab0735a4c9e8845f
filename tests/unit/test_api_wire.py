"""What Docker's clients send and expect, byte by byte, at the edge of our types."""

from __future__ import annotations

import json

import pytest

from naru.api.container import ContainerConfig, ContainerCreateRequest, ContainerInspect, PortSummary
from naru.api.exec import ExecCreateRequest
from naru.api.network import EndpointSettings
from naru.api.progress import ProgressDetail, ProgressMessage
from naru.api.wire import decode, encode
from naru.errors import InvalidArgument


def test_irregular_keys_are_spelled_as_docker_spells_them() -> None:
    keys = set(ContainerInspect().host_config.__struct_encode_fields__) | set(EndpointSettings.__struct_encode_fields__)
    assert keys >= {
        "IOMaximumIOps",
        "BlkioDeviceReadIOps",
        "NanoCpus",
        "CpusetCpus",
        "UTSMode",
        "UsernsMode",
        "CgroupnsMode",
        "Dns",
        "ContainerIDFile",
        "KernelMemoryTCP",
        "IPAMConfig",
        "IPAddress",
        "IPPrefixLen",
        "GlobalIPv6Address",
        "DNSNames",
    }


def test_a_config_shows_null_for_what_was_not_given_and_leaves_out_what_docker_leaves_out() -> None:
    written = json.loads(encode(ContainerConfig(image="x")))
    assert written == {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "x",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "Labels": {},
    }


def test_a_port_without_a_host_side_has_neither_address_nor_public_port() -> None:
    assert json.loads(encode(PortSummary(private_port=80))) == {"PrivatePort": 80, "Type": "tcp"}


def test_a_progress_line_shows_an_empty_detail_only_when_it_was_given() -> None:
    assert encode(ProgressMessage(status="Waiting", progress_detail=ProgressDetail())) == (
        b'{"status":"Waiting","progressDetail":{}}'
    )
    assert encode(ProgressMessage(stream="x")) == b'{"stream":"x"}'


def test_null_means_not_given_wherever_a_value_is_expected() -> None:
    request = decode(
        ContainerCreateRequest,
        b'{"Image":"x","User":null,"Labels":null,"HostConfig":{"LogConfig":null,"Memory":null},"NetworkingConfig":null}',
    )
    assert (request.user, request.labels, request.host_config.memory) == ("", None, 0)
    assert request.host_config.log_config.type == ""


def test_a_null_in_a_map_keeps_its_key() -> None:
    request = decode(
        ContainerCreateRequest,
        b'{"User":null,"ExposedPorts":{"80/tcp":null},"HostConfig":{"PortBindings":{"80/tcp":null}},'
        b'"NetworkingConfig":{"EndpointsConfig":{"own":null}}}',
    )
    assert request.exposed_ports == {"80/tcp": {}}
    assert request.host_config.port_bindings == {"80/tcp": None}
    assert request.networking_config.endpoints_config == {"own": EndpointSettings()}


def test_a_command_may_be_one_string() -> None:
    assert decode(ContainerCreateRequest, b'{"Cmd":"ls -l","Entrypoint":["sh"]}').cmd == ["ls -l"]


def test_unknown_fields_are_ignored() -> None:
    assert decode(ContainerCreateRequest, b'{"Image":"x","Future":{"A":[1]}}').image == "x"


def test_a_wrong_type_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidArgument, match=r"Expected `int`, got `str` - at `\$.HostConfig.Memory`"):
        decode(ContainerCreateRequest, b'{"HostConfig":{"Memory":"lots"}}')


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON in request"):
        decode(ContainerCreateRequest, b"{")


def test_a_request_survives_the_way_to_the_database_and_back() -> None:
    body = encode(ContainerCreateRequest(image="x", cmd=["a"], volumes={"/data": {}}))
    assert encode(decode(ContainerCreateRequest, body)) == body


def test_a_key_may_be_written_in_any_case() -> None:
    asked = decode(ExecCreateRequest, b'{"cmd": ["sh"], "detachKeys": "ctrl-x", "TTY": true, "Env": ["a=b"]}')

    assert (asked.cmd, asked.detach_keys, asked.tty, asked.env) == (["sh"], "ctrl-x", True, ["a=b"])


def test_the_exact_key_wins_over_other_spellings_and_maps_keep_theirs() -> None:
    asked = decode(ContainerConfig, b'{"Labels": {"tier": "front", "Tier": "back"}, "image": "other", "Image": "mine"}')

    assert asked.labels == {"tier": "front", "Tier": "back"}
    assert asked.image == "mine"
