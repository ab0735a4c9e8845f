"""The two engines, and how a scenario is played on them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import docker
from daemon import Terminal
from outcome import Outcome, stable
from scenario import Scenario, Step

from tests.bench.engines import Engine

API = "1.41"  # what 20.10 speaks: the same shapes are asked of both
IMAGE = "busybox:latest"
STEP_TIMEOUT_S = 30


class Side:
    """One of the two engines."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._env = os.environ | engine.env | {"DOCKER_API_VERSION": API, "DOCKER_BUILDKIT": "0", "LC_ALL": "C"}
        self._env |= {"PATH": f"{os.environ['PATH']}:/usr/sbin", "DOCKER_CLI_HINTS": "false"}
        self._api = docker.APIClient(base_url=engine.env["DOCKER_HOST"], version=API, timeout=60)

    def play(self, scenario: Scenario) -> list[Outcome]:
        """Run the steps from a clean state."""
        self.clear()
        with tempfile.TemporaryDirectory(prefix="naru-differential-") as directory:
            own_paths = {directory: "<here>", str(self._engine.directory): "<engine>"}
            outcomes = [self._run(step, directory) for step in scenario.steps]
        return [Outcome(one.code, stable(one.stdout, own_paths), stable(one.stderr, own_paths)) for one in outcomes]

    def clear(self) -> None:
        """Remove what the last scenario left: all but the image."""
        api = self._api
        for container in api.containers(all=True):
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks(filters={"type": "custom"}):
            api.remove_network(network["Id"])
        for volume in api.volumes()["Volumes"] or []:
            api.remove_volume(volume["Name"])
        api.prune_builds()
        for image in api.images():
            for name in image["RepoTags"] or [image["Id"]]:
                if name != IMAGE:
                    with contextlib.suppress(docker.errors.NotFound):
                        api.remove_image(image["Id"] if name == "<none>:<none>" else name, force=True)

    def _run(self, step: Step, directory: str) -> Outcome:
        command = ["env", "--chdir", directory, "sh", "-c", step.line]
        if step.prefix == "tty":
            with contextlib.closing(Terminal(command, self._env)) as terminal:
                return Outcome(terminal.end(STEP_TIMEOUT_S), terminal.seen, "")
        try:
            done = subprocess.run(
                command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=STEP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return Outcome(f"not within {STEP_TIMEOUT_S} s", "", "")
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@dataclass(frozen=True)
class Sides:
    """Both engines, which do everything at the same time."""

    naru: Side
    dockerd: Side

    def play(self, scenario: Scenario) -> tuple[list[Outcome], list[Outcome]]:
        """Run the steps on both; naru's outcomes first."""
        with ThreadPoolExecutor(2) as pool:
            ours, theirs = (pool.submit(side.play, scenario) for side in (self.naru, self.dockerd))
            return ours.result(), theirs.result()
