"""An update of per-device limits tells the kernel of those that go, too."""

from __future__ import annotations

from naru.api.container import ContainerUpdateRequest
from naru.api.host import HostConfig, ThrottleDevice, WeightDevice
from naru.engine.block_io import take_device_limits, with_lifted_limits


def test_what_is_not_asked_for_stays_and_an_empty_list_clears() -> None:
    host = HostConfig(
        blkio_device_read_bps=[ThrottleDevice(path="/dev/a", rate=1)],
        blkio_device_write_bps=[ThrottleDevice(path="/dev/a", rate=2)],
    )
    take_device_limits(host, ContainerUpdateRequest(blkio_device_read_bps=[]))
    assert host.blkio_device_read_bps is None
    assert host.blkio_device_write_bps == [ThrottleDevice(path="/dev/a", rate=2)]


def test_a_device_that_is_dropped_is_set_back() -> None:
    before = HostConfig(
        blkio_device_read_bps=[ThrottleDevice(path="/dev/a", rate=1), ThrottleDevice(path="/dev/b", rate=1)],
        blkio_weight_device=[WeightDevice(path="/dev/a", weight=10)],
    )
    after = HostConfig(blkio_device_read_bps=[ThrottleDevice(path="/dev/b", rate=3)], blkio_weight=300)
    told = with_lifted_limits(before, after)
    assert told.blkio_device_read_bps == [ThrottleDevice(path="/dev/b", rate=3), ThrottleDevice(path="/dev/a")]
    assert told.blkio_weight_device == [WeightDevice(path="/dev/a", weight=300)]
    assert after.blkio_weight_device is None
