"""Requests for devices by name or by what they can do, and the CDI files that serve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from naru.api.host import DeviceRequest
from naru.engine import cdi, device_requests
from naru.errors import InvalidArgument
from naru.oci import runtime as oci

YAML = """
cdiVersion: "0.6.0"
kind: nvidia.com/gpu
containerEdits:
  env: [COMMON=1]
devices:
  - name: "0"
    containerEdits:
      env: ["PATH=/other", "ZERO=1"]
      deviceNodes: [{path: /dev/gpu0, type: c, major: 195, minor: 0, permissions: rw}]
      mounts: [{hostPath: /lib/driver.so, containerPath: /usr/lib/driver.so, options: [ro, nosuid]}]
      hooks: [{hookName: createContainer, path: /bin/hook, args: [hook, link]}]
      additionalGids: [44]
  - name: "1"
    containerEdits: {env: [ONE=1]}
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cdi, "SPEC_DIRS", (str(tmp_path / "etc"), str(tmp_path / "run")))
    return tmp_path / "etc"


def _spec() -> oci.Spec:
    return oci.Spec(process=oci.Process(env=["PATH=/bin"]), linux=oci.Linux())


def test_a_device_brings_nodes_mounts_environment_hooks_and_groups(etc: Path) -> None:
    (etc / "gpu.yaml").write_text(YAML)
    spec = _spec()
    device_requests.apply(spec, [DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=0"])])
    assert spec.process is not None and spec.linux is not None and spec.hooks is not None
    assert spec.process.env == ["PATH=/other", "ZERO=1", "COMMON=1"]
    assert spec.process.user.additional_gids == [44]
    assert [(node.path, node.major) for node in spec.linux.devices] == [("/dev/gpu0", 195)]
    assert spec.linux.resources is not None
    assert [rule.access for rule in spec.linux.resources.devices] == ["rw"]
    assert [mount.options for mount in spec.mounts] == [["rbind", "ro", "nosuid"]]
    assert [hook.path for hook in spec.hooks.create_container] == ["/bin/hook"]


@pytest.mark.parametrize(
    ("request_", "variables"),
    [
        (DeviceRequest(count=1, capabilities=[["gpu"]]), {"PATH", "ZERO", "COMMON"}),
        (DeviceRequest(count=-1, capabilities=[["gpu"]]), {"PATH", "ZERO", "ONE", "COMMON"}),
        (DeviceRequest(device_ids=["1"], capabilities=[["gpu", "utility"]]), {"PATH", "ONE", "COMMON"}),
        (DeviceRequest(driver="nvidia", count=2), {"PATH", "ZERO", "ONE", "COMMON"}),
    ],
)
def test_gpus_are_found_by_number_and_by_name(etc: Path, request_: DeviceRequest, variables: set[str]) -> None:
    (etc / "gpu.yml").write_text(YAML)
    spec = _spec()
    device_requests.apply(spec, [request_])
    assert spec.process is not None
    assert {entry.partition("=")[0] for entry in spec.process.env} == variables


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            DeviceRequest(count=1, capabilities=[["gpu"]]),
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (DeviceRequest(driver="x", capabilities=[["a", "b"], ["c"]]), '"x" with capabilities: [[a b] [c]]'),
        (DeviceRequest(driver="cdi", device_ids=["a/b=c", "x"]), "unresolvable CDI devices a/b=c, x"),
    ],
)
def test_where_no_vendor_is_found_dockers_words_are_used(etc: Path, request_: DeviceRequest, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        device_requests.check([request_])
    assert said in str(refused.value)


def test_a_vendors_service_wins_over_the_administrator_and_a_name_told_twice_is_nobodys(etc: Path) -> None:
    def write(path: Path, value: str) -> None:
        devices = [{"name": "x", "containerEdits": {"env": [value]}}]
        path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "a.b/c", "devices": devices}))

    write(etc / "one.json", "FROM=etc")
    write(etc.parent / "run" / "two.json", "FROM=run")
    (etc / "broken.json").write_text("{")
    assert cdi.registry()["a.b/c=x"].edits.env == ["FROM=run"]
    write(etc.parent / "run" / "three.json", "FROM=elsewhere")
    assert "a.b/c=x" not in cdi.registry()


def test_a_hook_that_is_never_run_is_refused(etc: Path) -> None:
    (etc / "gpu.yaml").write_text(YAML.replace("createContainer", "poststop"))
    with pytest.raises(InvalidArgument, match='a hook "poststop" cannot be run'):
        device_requests.check([DeviceRequest(count=1, capabilities=[["gpu"]])])


def test_what_cannot_be_done_for_a_device_is_not_left_out_silently(etc: Path) -> None:
    (etc / "gpu.yaml").write_text(YAML.replace("additionalGids: [44]", "netDevices: [{hostInterfaceName: x}]"))
    with pytest.raises(InvalidArgument, match="intelRdt and netDevices are not supported"):
        device_requests.check([DeviceRequest(count=1, capabilities=[["gpu"]])])
