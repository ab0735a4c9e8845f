"""Old clients see the shapes they were written for."""

from __future__ import annotations

import pytest

from naru.api.container import ContainerCreateRequest, ContainerInspect
from naru.api.host import BindOptions, HostConfig, Mount
from naru.api.image import ImageInspect, ImageSummary
from naru.api.network import EndpointSettings, NetworkSettings
from naru.api.system import SystemInfo
from naru.errors import InvalidArgument
from naru.server.versions import normalize_create, parse, reshape


def inspected() -> ContainerInspect:
    networks = {
        "bridge": EndpointSettings(ip_address="172.17.0.2", mac_address="02:42:ac:11:00:02"),
        "own": EndpointSettings(aliases=["db"]),
    }
    return ContainerInspect(id="0123456789abcdef", network_settings=NetworkSettings(networks=networks))


def test_the_default_bridge_is_repeated_at_the_top_of_the_network_settings() -> None:
    assert reshape(inspected(), (1, 51)).network_settings.ip_address == "172.17.0.2"


def test_before_1_45_the_short_id_is_an_alias_on_networks_of_ones_own() -> None:
    networks = reshape(inspected(), (1, 44))["NetworkSettings"]["Networks"]
    assert networks["own"]["Aliases"] == ["db", "0123456789ab"]
    assert networks["bridge"]["Aliases"] is None


def test_before_1_44_the_mac_address_is_in_the_config_and_images_have_a_virtual_size() -> None:
    assert reshape(inspected(), (1, 43))["Config"]["MacAddress"] == "02:42:ac:11:00:02"
    assert reshape(ImageInspect(size=42), (1, 43))["VirtualSize"] == 42


def test_before_1_43_an_untagged_image_is_called_none() -> None:
    assert reshape([ImageSummary()], (1, 42))[0]["RepoTags"] == ["<none>:<none>"]
    assert reshape([ImageSummary()], (1, 43))[0]["RepoTags"] == []


def test_before_1_25_security_options_are_bare_names() -> None:
    info = reshape(SystemInfo(security_options=["name=seccomp,profile=builtin"]), (1, 24))
    assert info["SecurityOptions"] == ["seccomp"]


def test_a_container_wide_mac_address_moves_to_the_endpoint() -> None:
    request = ContainerCreateRequest(mac_address="02:00:00:00:00:01", host_config=HostConfig(network_mode="own"))
    normalize_create(request, (1, 43))
    assert request.networking_config.endpoints_config == {"own": EndpointSettings(mac_address="02:00:00:00:00:01")}
    assert request.mac_address == ""


def test_a_version_we_do_not_speak_is_refused_in_dockers_words() -> None:
    with pytest.raises(
        InvalidArgument, match=r"client version 1.23 is too old\. Minimum supported API version is 1.24"
    ):
        parse("1.23")
    with pytest.raises(InvalidArgument, match=r"client version 9.9 is too new\. Maximum supported API version is 1.51"):
        parse("9.9")


def test_before_1_44_a_read_only_bind_did_not_reach_what_is_mounted_below_it() -> None:
    def request() -> ContainerCreateRequest:
        mounts = [Mount(type="bind", source="/x", target="/y", read_only=True), Mount(type="tmpfs", target="/z")]
        return ContainerCreateRequest(host_config=HostConfig(mounts=mounts))

    old, new = request(), request()
    normalize_create(old, (1, 43))
    normalize_create(new, (1, 44))
    assert [mount.bind_options for mount in old.host_config.mounts or []] == [
        BindOptions(read_only_non_recursive=True),
        None,
    ]
    assert [mount.bind_options for mount in new.host_config.mounts or []] == [None, None]
