"""Old clients see the shapes they were written for."""

from __future__ import annotations

import msgspec
import pytest

from naru.api.container import ContainerCreateRequest, ContainerInspect, ContainerUpdateRequest
from naru.api.disk import DiskUsage, ImagesUsage
from naru.api.event import EventActor, EventMessage
from naru.api.host import BindOptions, HostConfig, Mount, PortBinding, VolumeOptions
from naru.api.image import ImageInspect, ImageSummary
from naru.api.network import EndpointSettings, NetworkSettings
from naru.api.system import SystemInfo
from naru.errors import InvalidArgument
from naru.server.versions import normalize_create, normalize_update, parse, reshape, shown_usage


def inspected() -> ContainerInspect:
    networks = {
        "bridge": EndpointSettings(ip_address="172.17.0.2", mac_address="02:42:ac:11:00:02"),
        "own": EndpointSettings(aliases=["db"]),
    }
    return ContainerInspect(id="0123456789abcdef", network_settings=NetworkSettings(networks=networks))


def test_before_1_52_the_default_bridge_is_repeated_at_the_top_of_the_network_settings() -> None:
    assert reshape(inspected(), (1, 51))["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert "IPAddress" not in msgspec.to_builtins(reshape(inspected(), (1, 52)))["NetworkSettings"]


def test_before_1_52_an_event_has_its_action_at_the_top() -> None:
    event = EventMessage(type="container", action="die", actor=EventActor(id="c", attributes={"image": "i"}))
    old, new = reshape(event, (1, 51)), msgspec.to_builtins(reshape(event, (1, 52)))
    assert (old["status"], old["id"], old["from"]) == ("die", "c", "i")
    assert not {"status", "id", "from"} & new.keys()


def test_before_1_52_an_images_empty_fields_are_shown() -> None:
    old, new = reshape(ImageInspect(), (1, 51)), msgspec.to_builtins(reshape(ImageInspect(), (1, 52)))
    assert old["Parent"] == old["Author"] == "" and old["Config"]["Cmd"] is None
    assert not {"Parent", "Author", "DockerVersion", "Comment"} & new.keys()


def test_disk_usage_is_objects_before_1_52_and_sums_since_1_53() -> None:
    usage = DiskUsage(image_usage=ImagesUsage(total_size=42, items=[ImageSummary(size=42)]))
    assert shown_usage(usage, (1, 51), verbose=False).keys() == LEGACY_USAGE
    assert shown_usage(usage, (1, 43), verbose=False)["Images"][0]["VirtualSize"] == 42
    assert shown_usage(usage, (1, 52), verbose=False).keys() == LEGACY_USAGE | {"ImageUsage"}
    assert shown_usage(usage, (1, 53), verbose=False) == {
        "ImageUsage": {"ActiveCount": 0, "TotalCount": 0, "Reclaimable": 0, "TotalSize": 42}
    }
    assert shown_usage(usage, (1, 53), verbose=True)["ImageUsage"]["Items"][0]["Size"] == 42


def test_per_device_limits_of_block_io_are_updated_since_1_55() -> None:
    for version, kept in (((1, 54), None), ((1, 55), [])):
        request = ContainerUpdateRequest(blkio_device_read_bps=[])
        normalize_update(request, version)
        assert request.blkio_device_read_bps == kept


def test_since_1_52_an_empty_list_of_port_bindings_is_warned_of() -> None:
    for version, warned in (((1, 51), False), ((1, 52), True)):
        request = ContainerCreateRequest(host_config=HostConfig(port_bindings={"80/tcp": []}))
        assert bool(normalize_create(request, version)) is warned
        assert request.host_config.port_bindings == {"80/tcp": [PortBinding()]}


def test_what_a_version_does_not_have_is_dropped_or_refused_as_docker_does() -> None:
    for version, request in (
        ((1, 52), ContainerCreateRequest(mac_address="02:00:00:00:00:01")),
        ((1, 42), mounted(Mount(type="bind", volume_options=VolumeOptions()))),
        ((1, 43), mounted(Mount(type="bind", bind_options=BindOptions(read_only_force_recursive=True)))),
        ((1, 44), mounted(Mount(type="volume", volume_options=VolumeOptions(subpath="x")))),
        ((1, 47), mounted(Mount(type="image"))),
    ):
        with pytest.raises(InvalidArgument):
            normalize_create(request, version)
    dropped = mounted(Mount(type="bind", volume_options=VolumeOptions()))
    normalize_create(dropped, (1, 41))
    assert dropped.host_config.mounts == [Mount(type="bind")]


def mounted(mount: Mount) -> ContainerCreateRequest:
    return ContainerCreateRequest(host_config=HostConfig(mounts=[mount]))


LEGACY_USAGE = {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}


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
    with pytest.raises(InvalidArgument, match=r"client version 9.9 is too new\. Maximum supported API version is 1.55"):
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
