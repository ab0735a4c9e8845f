"""Builds with real containers: what images come out, what is cached, what is left after failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_site import BUSYBOX, Site

from naru.api.build import BuildOptions
from naru.api.host import Ulimit
from naru.build.failure import StepFailed
from naru.build.progress import failure_message
from naru.build.step import Cancelled
from naru.build.syntax import DockerfileError
from naru.errors import CannotStart, InvalidArgument, NotFound, Unsupported
from naru.image.store import Image
from naru.launcher import spawn

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0 or not os.path.exists(BUSYBOX), reason="needs root and a static busybox"),
]

BASE = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
ACCOUNTS = "RUN mkdir -p /etc && echo 'app:x:70:71::/home/app:/bin/sh' > /etc/passwd && echo 'app:x:71:' > /etc/group\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with the image `base`, which has busybox."""
    _, launcher = spawn()
    site = Site(tmp_path_factory.mktemp("build"), launcher)
    site.build(BASE, tags=["base"])
    yield site
    site.tasks.close()
    launcher.close()


@pytest.fixture(autouse=True)
def nothing_is_left(site: Site) -> Iterator[None]:
    yield
    assert site.leftovers() == []


def layer_names(site: Site, image: Image) -> list[list[str]]:
    names = []
    for layer in image.layers:
        with tarfile.open(site.content.path(layer.digest)) as tar:
            names.append(sorted(tar.getnames()))
    return names


def test_an_image_has_what_its_steps_made_and_its_config_says(site: Site) -> None:
    image = site.build(
        """FROM base
ARG WHO=world
ENV GREETING="hello $WHO"
LABEL one=1 two="2 2"
WORKDIR /srv
WORKDIR app
RUN echo "$GREETING" > greeting
COPY --chmod=600 note notes/
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=30s CMD test -e greeting
ENTRYPOINT ["cat"]
CMD ["greeting"]
""",
        {"note": "n"},
        tags=["hello:1", "hello:latest"],
        labels={"three": "3"},
    )
    with site.view(image) as root:
        assert (root / "srv/app/greeting").read_text() == "hello world\n"
        assert (root / "srv/app/notes/note").stat().st_mode & 0o7777 == 0o600
    config = image.config.config
    assert config is not None
    assert config.env is not None
    assert config.env[1:] == ["GREETING=hello world"]
    assert (config.working_dir, config.entrypoint, config.cmd) == ("/srv/app", ["cat"], ["greeting"])
    assert config.labels == {"one": "1", "two": "2 2", "three": "3"}
    assert sorted(config.exposed_ports or {}) == ["53/udp", "80/tcp"]
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "test -e greeting"]
    assert sorted(image.tags) == ["hello:1", "hello:latest"]
    history = image.config.history or []
    assert len([step for step in history if not step.empty_layer]) == len(image.layers)
    assert 'RUN |1 WHO=world /bin/sh -c echo "$GREETING" > greeting # buildkit' in [s.created_by for s in history]


def test_the_stream_is_the_classic_builders(site: Site) -> None:
    image = site.build("FROM base\nENV a=1\nRUN echo out; echo err >&2\n", tags=["said"])
    lines = site.output.splitlines()
    assert lines[0] == "Step 1/3 : FROM base"
    assert "Step 3/3 : RUN echo out; echo err >&2" in lines
    assert lines[lines.index("Step 3/3 : RUN echo out; echo err >&2") + 1].startswith(" ---> Running in ")
    assert {"out", "err"} <= set(lines)
    assert lines[-2:] == [f"Successfully built {image.id[7:19]}", "Successfully tagged said:latest"]
    assert {"ID": image.id} in [message.aux for message in site.messages]


def test_a_quiet_build_says_only_the_id(site: Site) -> None:
    image = site.build("FROM base\nENV q=1\n", quiet=True)
    assert site.output == f"{image.id}\n"


def test_a_layer_holds_only_what_its_step_did(site: Site) -> None:
    image = site.build(
        "FROM base\nRUN --mount=type=tmpfs,target=/some/where/new true\nRUN touch /etc-file && test -s /etc/hosts\n"
    )
    assert layer_names(site, image)[2:] == [["etc-file"]]


def test_a_cached_rebuild_runs_nothing_and_gives_the_same_image(site: Site) -> None:
    dockerfile = "FROM base\nWORKDIR /w\nCOPY f .\nRUN cat f /proc/sys/kernel/random/uuid > out\nENV a=1\n"
    first = site.build(dockerfile, {"f": "1"})
    second = site.build(dockerfile, {"f": "1"})
    assert second.id == first.id
    assert site.output.count(" ---> Using cache\n") == 3
    assert "Running in" not in site.output


def test_only_what_depends_on_a_changed_file_runs_again(site: Site) -> None:
    dockerfile = "FROM base\nRUN echo one > /one\nCOPY f /f\nRUN cat /f > /two\n"
    site.build(dockerfile, {"f": "1", "unrelated": "1"})
    site.build(dockerfile, {"f": "1", "unrelated": "2"})
    assert "Running in" not in site.output
    image = site.build(dockerfile, {"f": "2"})
    assert site.output.count("Using cache") == 1
    with site.view(image) as root:
        assert (root / "two").read_text() == "2"


def test_a_label_does_not_make_a_later_run_run_again_but_an_environment_does(site: Site) -> None:
    site.build("FROM base\nLABEL a=1\nRUN echo x > /x\n")
    site.build("FROM base\nLABEL a=2\nRUN echo x > /x\n")
    assert "Running in" not in site.output
    site.build("FROM base\nENV a=2\nRUN echo x > /x\n")
    assert "Running in" in site.output


def test_no_cache_runs_everything(site: Site) -> None:
    site.build("FROM base\nRUN echo again > /again\n")
    site.build("FROM base\nRUN echo again > /again\n", no_cache=True)
    assert "Running in" in site.output


def test_stages_copy_from_each_other_and_unused_ones_are_not_built(site: Site) -> None:
    image = site.build(
        """FROM base AS one
RUN echo 1 > /made && chown 5:6 /made
FROM base AS unused
RUN exit 9
FROM scratch
COPY --from=one /made /a
COPY --from=0 /made /b
COPY --from=base /bin/busybox /c
"""
    )
    with site.view(image) as root:
        status = (root / "a").stat()
        assert (status.st_uid, status.st_gid) == (5, 6)
        assert sorted(os.listdir(root)) == ["a", "b", "c"]


def test_a_target_stops_at_its_stage(site: Site) -> None:
    image = site.build("FROM base AS first\nRUN echo 1 > /1\nFROM first AS second\nRUN exit 1\n", target="first")
    with site.view(image) as root:
        assert (root / "1").exists()


def test_a_failing_run_says_its_command_code_and_line_and_keeps_the_steps_before(site: Site) -> None:
    dockerfile = "FROM base\nRUN echo fine > /fine\nRUN echo last words; exit 7\n"
    with pytest.raises(StepFailed) as caught:
        site.build(dockerfile, tags=["never"])
    error = caught.value
    assert str(error) == "The command '/bin/sh -c echo last words; exit 7' returned a non-zero code: 7"
    assert (error.exit_code, error.line, error.output_tail) == (7, 3, "last words\n")
    message = failure_message(error)
    assert message.error_detail is not None
    assert (message.error, message.error_detail.code) == (str(error), 7)
    with pytest.raises(NotFound):
        site.images.get("never")
    with pytest.raises(StepFailed):
        site.build(dockerfile)
    assert site.output.count("Using cache") == 1


def test_a_run_without_its_shell_fails_with_127(site: Site) -> None:
    with pytest.raises(CannotStart) as caught:
        site.build('FROM base\nSHELL ["/bin/nosuchshell", "-c"]\nRUN x\n')
    assert caught.value.exit_code == 127


def test_here_documents_are_scripts_files_or_input(site: Site) -> None:
    image = site.build(
        """FROM base
RUN <<EOF
set -e
echo a > /a
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print "b" > "/b" }
EOF
RUN cat > /c <<EOF
c
EOF
COPY <<d <<e /
in d
d
in e
e
"""
    )
    with site.view(image) as root:
        assert [(root / name).read_text() for name in "abcde"] == ["a\n", "b\n", "c\n", "in d\n", "in e\n"]


def test_user_and_workdir_own_what_a_user_would_expect(site: Site) -> None:
    image = site.build(f"FROM base\n{ACCOUNTS}USER app\nWORKDIR /home/app/w\nRUN id > id; echo $HOME > home\n")
    with site.view(image) as root:
        assert "uid=70(app) gid=71(app)" in (root / "home/app/w/id").read_text()
        assert (root / "home/app/w/home").read_text() == "/home/app\n"
        assert (root / "home/app/w").stat().st_uid == 70


def test_onbuild_triggers_run_in_the_build_on_top(site: Site) -> None:
    site.build("FROM base\nONBUILD COPY f /from-trigger\nONBUILD RUN cat /from-trigger > /ran\n", tags=["parent"])
    image = site.build("FROM parent\n", {"f": "x"})
    assert "# Executing 2 build triggers\n" in site.output
    assert image.config.config is not None
    assert image.config.config.on_build is None
    with site.view(image) as root:
        assert (root / "ran").read_text() == "x"


def test_a_trigger_that_needs_its_own_stage_is_refused(site: Site) -> None:
    site.build("FROM base\nONBUILD COPY --from=me /x /\n", tags=["knot"])
    with pytest.raises(DockerfileError, match="circular dependency detected on stage: me"):
        site.build("FROM knot AS me\n")


def test_run_mounts_are_there_and_not_in_the_layer(site: Site) -> None:
    dockerfile = """FROM base AS source
RUN mkdir /s && echo s > /s/f
FROM base
RUN --mount=type=bind,target=/ctx --mount=from=source,source=/s,target=/s,rw \
    --mount=type=cache,target=/cache,id=count --mount=type=tmpfs,target=/t \
    echo x >> /s/f && echo x >> /cache/n && touch /t/x && ! touch /ctx/x 2>/dev/null && \
    cat /ctx/f /s/f /cache/n > /out
"""
    image = site.build(dockerfile, {"f": "c\n"})
    with site.view(image) as root:
        assert (root / "out").read_text() == "c\ns\nx\nx\n"
        assert sorted(os.listdir(root)) == ["bin", "out"]
    image = site.build(dockerfile, {"f": "d\n"})
    with site.view(image) as root:
        assert (root / "out").read_text() == "d\ns\nx\nx\nx\n"


def test_limits_reach_the_step(site: Site) -> None:
    site.build("FROM base\nRUN ulimit -n; echo limited\n", ulimits=[Ulimit(name="nofile", soft=77, hard=88)])
    assert "77\nlimited\n" in site.output


def test_a_network_of_none_has_only_loopback(site: Site) -> None:
    image = site.build("FROM base\nRUN --network=none ls /sys/class/net > /links\n")
    with site.view(image) as root:
        assert (root / "links").read_text() == "lo\n"


def test_what_the_host_lends_reaches_run_but_no_layer_config_or_key(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("a certificate\n")
    environ = {"https_proxy": "http://proxy:1", "SSL_CERT_FILE": str(bundle), "PIP_INDEX_URL": "http://pip"}
    lender = Site(tmp_path, site.launcher, environ)
    lender.build(BASE, tags=["base"])
    dockerfile = "FROM base\nRUN cat $SSL_CERT_FILE $APT_CONFIG && echo $HTTPS_PROXY $PIP_INDEX_URL && touch /done\n"
    image = lender.build(dockerfile)
    assert "a certificate\n" in lender.output
    assert 'Acquire::https::CAInfo "/run/naru-host/ca.crt";\nAcquire::https::Proxy "http://proxy:1";' in lender.output
    assert "http://proxy:1 http://pip\n" in lender.output
    assert layer_names(lender, image)[2:] == [["done"]]
    assert image.config.config is not None
    assert "proxy" not in repr(image.config)
    other = Site(tmp_path, site.launcher, {})
    other.build(dockerfile)
    assert "Running in" not in other.output


def test_proxy_build_arguments_are_seen_and_not_remembered(site: Site) -> None:
    dockerfile = "FROM base\nRUN echo proxy is $http_proxy\n"
    image = site.build(dockerfile, build_args={"http_proxy": "http://p"})
    assert "proxy is http://p" in site.output
    assert "http://p" not in repr(image.config)
    site.build(dockerfile, build_args={"http_proxy": "http://q"})
    assert "Running in" not in site.output


def test_an_unused_build_argument_is_warned_about(site: Site) -> None:
    site.build("FROM base\nARG used\n", build_args={"used": "1", "b": "2", "a": "3"})
    assert "[Warning] One or more build-args [a b] were not consumed\n" in site.output


def test_two_machines_make_the_same_image_of_one_source_date(site: Site, tmp_path: Path) -> None:
    dockerfile = BASE + "WORKDIR /w\nCOPY f .\nRUN echo x > y\n"
    ids = []
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        place = Site(root, site.launcher)
        ids.append(place.build(dockerfile, {"f": "1"}, build_args={"SOURCE_DATE_EPOCH": "1700000000"}).id)
    assert ids[0] == ids[1]


def test_add_unpacks_a_local_archive(site: Site) -> None:
    context = site.context("FROM scratch\nADD a.tar.gz /x/\n", {"in": "1"})
    with tarfile.open(context / "a.tar.gz", "w:gz") as tar:
        tar.add(context / "in", "in")
    image = site.images.get(site.builder.build(context, BuildOptions(), lambda message: None))
    with site.view(image) as root:
        assert (root / "x/in").read_text() == "1"


@pytest.mark.parametrize(
    ("dockerfile", "options", "kind", "message"),
    [
        ("FROM base\nCOPY gone /\n", {}, NotFound, "COPY failed: file not found in build context"),
        ("FROM base\nCOPY --from=nowhere /a /\n", {}, NotFound, "pull access denied for nowhere:latest"),
        ("FROM base\nRUN true\nEXPOSE http\n", {}, DockerfileError, "on line 3: invalid containerPort: http"),
        ("FROM base\nSTOPSIGNAL SIGNOPE\n", {}, DockerfileError, "on line 2: Invalid signal: SIGNOPE"),
        ("FROM $nothing\n", {}, DockerfileError, r"base name \(\$nothing\) should not be blank"),
        ("FROM base\n", {"target": "x"}, InvalidArgument, 'target stage "x" could not be found'),
        ("FROM base\n", {"tags": ["Not Valid"]}, InvalidArgument, "invalid reference format"),
        ("FROM base\n", {"platform": "linux/s390x"}, Unsupported, "building for linux/s390x on"),
        ("FROM base\n", {"squash": True}, Unsupported, "squash"),
        ("FROM base\n", {"build_args": {"SOURCE_DATE_EPOCH": "x"}}, InvalidArgument, "invalid SOURCE_DATE_EPOCH"),
        ("FROM base\nRUN --mount=type=secret,id=k,required true\n", {}, InvalidArgument, "secret k: not found"),
        ("FROM base\nRUN --security=insecure true\n", {}, DockerfileError, "security.insecure is not allowed"),
    ],
)
def test_a_build_that_cannot_be_done_says_why(
    site: Site, dockerfile: str, options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        site.build(dockerfile, **options)


def test_a_cancelled_build_kills_its_step(site: Site) -> None:
    cancelled = threading.Event()
    context = site.context("FROM base\nRUN echo started; sleep 1000\n", {})

    def progress(message: object) -> None:
        if getattr(message, "stream", "") == "started\n":
            cancelled.set()

    with pytest.raises(Cancelled):
        site.builder.build(context, BuildOptions(), progress, cancelled)


def test_images_removed_keep_the_cache_and_pruning_frees_it(site: Site, tmp_path: Path) -> None:
    place = Site(tmp_path, site.launcher)
    image = place.build(BASE, tags=["gone"])
    place.images.remove("gone")
    place.build(BASE)
    assert "Running in" not in place.output
    place.images.remove(image.id)
    report = place.builder.prune()
    assert report.space_reclaimed > 0
    assert place.snapshots.committed() == []
    assert place.builder.disk_usage() == []


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from naru.launcher import spawn
_, launcher = spawn()
from pathlib import Path
from build_site import Site
site = Site(Path(sys.argv[1]), launcher)
context = site.context(sys.argv[3], {})
from naru.api.build import BuildOptions
from naru.api.host import Ulimit
print("ready", flush=True)
site.builder.build(context, BuildOptions(), lambda message: print(message.stream, end="", flush=True))
"""


def test_a_build_killed_half_way_leaves_nothing_and_its_finished_steps_are_cached(site: Site, tmp_path: Path) -> None:
    dockerfile = BASE + "RUN echo kept > /kept\nRUN echo started; sleep 1000\n"
    here = str(Path(__file__).parent)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), here, dockerfile], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "started\n":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    place = Site(tmp_path, site.launcher)
    assert place.leftovers() != []
    place.builder.recover()
    place.snapshots.recover(keys=[])
    assert place.leftovers() == []
    place.build(BASE + "RUN echo kept > /kept\n")
    assert place.output.count("Using cache") == 3
