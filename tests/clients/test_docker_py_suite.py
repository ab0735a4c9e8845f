"""docker-py's own integration tests, as published with its release 6.1.3, the last that brings them.

They run unchanged, with the docker-py of this environment, against a narud of their own. What is left out, and why, is
written down below; everything else must pass.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, pull

pytestmark = [pytest.mark.root, pytest.mark.packages, pytest.mark.timeout(900)]

RELEASE = "docker==6.1.3"

# The suite's stand-in for alpine: what its tests look for beyond busybox.
ALPINE = """FROM busybox
RUN echo 'postgres:x:70:70:Postgres:/var/lib/postgresql:/bin/sh' >>/etc/passwd \\
 && echo 'postgres:x:70:' >>/etc/group \\
 && mkdir -p /var/opt /var/lib/postgresql
"""

# Whole files and classes of what this engine is not, or that test the library alone.
NOT_OURS = (
    "api_config_test",
    "api_plugin_test",
    "api_secret_test",
    "api_service_test",
    "api_swarm_test",
    "context_api_test",
    "credentials",
    "models_nodes_test",
    "models_services_test",
    "models_swarm_test",
)

# Single tests, by the reason why they cannot pass here, or are wrong about today's engines too.
DIFFERENT = {
    "needs an answer of Docker Hub itself": [
        "api_image_test.py::PullImageTest::test_pull_invalid_platform",
        "api_image_test.py::InspectDistributionTest::test_inspect_distribution",
        "models_images_test.py::ImageCollectionTest::test_pull_multiple",
        "models_images_test.py::ImageCollectionTest::test_pull_with_sha",
        "models_containers_test.py::ContainerCollectionTest::test_run_with_image_that_does_not_exist",
    ],
    "needs a swarm": [
        "api_network_test.py::TestNetworks::test_create_inspect_network_with_scope",
        "api_network_test.py::TestNetworks::test_create_network_attachable",
        "api_network_test.py::TestNetworks::test_create_network_ingress",
    ],
    "newer engines say `cannot remove container …: container is running`, and so do we": [
        "errors_test.py::ErrorsTest::test_api_error_parses_json",
        "api_container_test.py::CreateContainerTest::test_create_with_restart_policy",
    ],
    "newer engines end an exec of a missing command with 127, not 126, and so do we": [
        "models_containers_test.py::ContainerTest::test_exec_run_failed",
    ],
    "since API 1.45 an image does not say which container it was committed from, and ours never does": [
        "api_image_test.py::CommitTest::test_commit",
        "api_image_test.py::CommitTest::test_commit_with_changes",
    ],
    "since API 1.44 the names of networks are always checked": [
        "api_network_test.py::TestNetworks::test_create_check_duplicate",
    ],
    "they read the log right after the start, without waiting for the end, which a quick start loses": [
        "api_build_test.py::BuildTest::test_build_in_context_abs_dockerfile",
        "api_build_test.py::BuildTest::test_build_in_context_dockerfile",
        "api_build_test.py::BuildTest::test_build_in_context_nested_dockerfile",
        "api_build_test.py::BuildTest::test_build_out_of_context_dockerfile",
    ],
    "today's docker-py cannot open a websocket over a unix socket": [
        "api_container_test.py::AttachContainerTest::test_run_container_reading_socket_ws",
    ],
    "the runtime is called naru, whatever alias was asked for": [
        "api_container_test.py::ContainerCPUTest::test_create_with_runtime",
    ],
    "IPAM options are an empty object, not null, where none were given": [
        "api_network_test.py::TestNetworks::test_create_network_with_ipam_config",
    ],
    "a volume driver that is not there is refused at once, with 400": [
        "api_volume_test.py::TestVolumes::test_create_volume_invalid_driver",
        "models_containers_test.py::ContainerTest::test_create_with_volume_driver",
    ],
    "links are lines of /etc/hosts here: no environment variables, and none is removed alone": [
        "api_container_test.py::CreateContainerTest::test_create_with_links",
        "api_container_test.py::LinkTest::test_remove_link",
    ],
    "the classic builder's red standard error and cache sources, which ours does not have": [
        "api_build_test.py::BuildTest::test_build_stderr_data",
        "api_build_test.py::BuildTest::test_build_with_cache_from",
    ],
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory above the published `tests` package."""
    scratch = tmp_path_factory.mktemp("docker-py")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", RELEASE]
    if subprocess.run(command, cwd=scratch, capture_output=True).returncode:
        pytest.skip(f"needs the source release {RELEASE} from a package index")
    archive = next(scratch.glob("docker-*.tar.gz"))
    with tarfile.open(archive) as opened:
        opened.extractall(scratch)
    shutil.move(next(scratch.glob("docker-*/tests")), scratch / "tests")
    return scratch


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A narud whose library also has `alpine`."""
    library = tmp_path_factory.mktemp("library") / "library"
    shutil.copytree(Path(__file__).parents[2] / "library", library)
    (library / "alpine").mkdir()
    (library / "alpine/Dockerfile").write_text(ALPINE)
    (library / "alpine/recipe.toml").write_text('kind = "dockerfile"\n[[image]]\ntags = ["3.10", "latest"]\n')
    daemon = Daemon(NARU_LIBRARY=str(library))
    try:
        pull(daemon, "busybox", "alpine:3.10")
        yield daemon
    finally:
        daemon.close()


def test_docker_pys_published_integration_tests_pass(engine: Daemon, suite: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    command = [
        *engine.namespace.command(sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir=.", "-q"),
        *("-o", "python_files=*_test.py", "-p", "no:cacheprovider", "--timeout=60", f"--junit-xml={report}"),
        *(f"--ignore-glob=*/integration/{name}*" for name in NOT_OURS),
        *(f"--deselect=tests/integration/{name}" for names in DIFFERENT.values() for name in names),
        "tests/integration",
    ]
    # The version that its own release tests it at.
    environment = engine.client_env | {"PYTHONPATH": str(suite), "DOCKER_TEST_API_VERSION": "1.41", "LANG": "C.UTF-8"}

    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, timeout=840)

    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    assert not failed, done.stdout[-40000:]
    assert len(cases) > 200
