"""Log drivers that deliver to servers: syslog, journald, fluentd; to real servers where Debian has them."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, wait_until
from log_servers import ForwardServer, Journald, Receiver, certificates, listening, rsyslog

pytestmark = pytest.mark.root

UDP = 'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="{port}")'
TCP = 'module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="{port}")'
UNIX = 'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}" useSpecialParser="{special}")'
BOTH = "echo out; echo err >&2"
COUNT = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; done"


def couriers(narud: Daemon) -> list[int]:
    return [int(one.partition(":")[0]) for one in narud.namespace.processes() if "naru-courier" in one]


def is_stalled(narud: Daemon, name: str) -> bool:
    """Does the container say nothing for a while, and not end?"""
    before = narud("logs", "--tail=1", name)
    time.sleep(0.5)
    return narud("logs", "--tail=1", name) == before and narud.api.inspect_container(name)["State"]["Running"]


def numbers(n: int) -> list[str]:
    return [f"line {number}" for number in range(1, n + 1)]


def syslog_options(address: str, **options: str) -> list[str]:
    given = {"syslog-address": address, **{name.replace("_", "-"): value for name, value in options.items()}}
    return ["--log-driver=syslog", *(f"--log-opt={name}={value}" for name, value in given.items())]


# --- syslog


def test_rsyslogd_understands_every_format_over_tcp(narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, TCP.format(port=6514), narud.namespace) as server:
        for form in ("rfc3164", "rfc5424", "rfc5424micro"):
            options = syslog_options("tcp://127.0.0.1:6514", syslog_format=form, tag=form, syslog_facility="local3")
            narud("run", "--rm", "--network=none", *options, "busybox", "sh", "-c", "echo hello")
        wait_until(lambda: len(server.lines) == 3)
    old, new, micro = [line.split("|") for line in server.lines]
    assert old[:4] == ["local3", "info", socket.gethostname(), "rfc3164"]
    assert new[:4] == ["local3", "info", socket.gethostname(), "rfc5424"]
    assert (old[6], new[5:7], micro[5:7]) == ("0", ["rfc5424", "1"], ["rfc5424micro", "1"])
    assert [line[-1].strip() for line in (old, new, micro)] == ["hello"] * 3
    assert "." not in new[7] and len(micro[7].partition(".")[2]) > 6


def test_stdout_is_info_and_stderr_error_over_udp(narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, UDP.format(port=6515), narud.namespace) as server:
        options = syslog_options("udp://127.0.0.1:6515", tag="{{.Name}}.{{.ImageName}}")
        narud("run", "--rm", "--name=speaker", *options, "busybox", "sh", "-c", BOTH)
        wait_until(lambda: len(server.lines) == 2)
    received = {tuple(line.split("|")[:2]): line for line in server.lines}
    assert set(received) == {("daemon", "info"), ("daemon", "err")}
    assert "|speaker.busybox|" in received["daemon", "info"]


@pytest.mark.parametrize("scheme", ["unix", "unixgram"])
def test_messages_arrive_at_a_unix_socket(narud: Daemon, tmp_path: Path, scheme: str) -> None:
    path = str(tmp_path / "socket")
    receiver = Receiver(listening(path, socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM))
    identifier = narud("run", "-d", *syslog_options(f"{scheme}://{path}"), "busybox", "echo", "hello")
    wait_until(lambda: b"hello\n" in receiver.data + b"".join(receiver.messages))
    message = (receiver.data or receiver.messages[0]).decode()
    assert message.startswith("<30>") and f" {identifier[:12]}[" in message and message.endswith("]: hello\n")
    receiver.close()


def test_rsyslogd_takes_datagrams_of_its_own_socket(narud: Daemon, tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with rsyslog(tmp_path, UNIX.format(path=path, special="off")) as server:
        wait_until(lambda: os.path.exists(path))
        narud("run", "--rm", *syslog_options(f"unixgram://{path}", tag="x"), "busybox", "sh", "-c", COUNT.format(n=50))
        wait_until(lambda: len(server.lines) == 50)
    assert server.texts == numbers(50)


@pytest.mark.parametrize("verifies", [True, False])
def test_tls_frames_are_counted_and_the_server_is_verified(narud: Daemon, tmp_path: Path, verifies: bool) -> None:
    authority, certificate, key = certificates(tmp_path, "localhost" if verifies else "elsewhere")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(narud.namespace.call(listening, ("127.0.0.1", 6516)), context)
    options = {"syslog_tls_ca_cert": str(authority)} if verifies else {"syslog_tls_skip_verify": "true"}
    narud(
        *("run", "--rm", *syslog_options("tcp+tls://localhost:6516", syslog_format="rfc5424", **options)),
        *("busybox", "sh", "-c", "echo one; echo two"),
    )
    wait_until(lambda: receiver.data.endswith(b"two\n"))
    length, _, rest = receiver.data.partition(b" ")
    assert rest[: int(length)].endswith(b" - one\n") and rest[int(length) :].partition(b" ")[2].startswith(b"<30>1 ")
    receiver.close()


def test_a_tls_server_that_is_somebody_else_gets_nothing(narud: Daemon, tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path, "elsewhere")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver = Receiver(narud.namespace.call(listening, ("127.0.0.1", 6517)), context)
    options = syslog_options("tcp+tls://localhost:6517", syslog_tls_ca_cert=str(authority))
    narud("run", "--name=careful", *options, "busybox", "echo", "secret")
    wait_until(lambda: "certificate verify failed" in narud.log.read_text())
    assert receiver.data == b"" and narud("logs", "careful") == "secret"
    receiver.close()


# --- a server that is dead or slow


def test_what_is_said_while_the_server_is_away_is_delivered_when_it_is_back(narud: Daemon, tmp_path: Path) -> None:
    command = "echo before; while [ ! -e /go ]; do sleep 0.05; done; " + COUNT.format(n=3000) + "; sleep 600"
    options = syslog_options("tcp://127.0.0.1:6518", syslog_format="rfc5424", tag="t")
    with rsyslog(tmp_path, TCP.format(port=6518), narud.namespace) as server:
        narud("run", "-d", "--name=talker", *options, "busybox", "sh", "-c", command)
        wait_until(lambda: server.texts == ["before"])
        server.stop()
        narud("exec", "talker", "touch", "/go")
        wait_until(lambda: narud("logs", "--tail=1", "talker") == "line 3000")
        wait_until(lambda: "the log server takes nothing" in narud.log.read_text())
        server.start()
        wait_until(lambda: server.texts[-1] == "line 3000", 20)
        assert server.texts == ["before", *numbers(3000)]


def test_delivery_goes_on_while_narud_is_away(own_narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, TCP.format(port=6519), own_narud.namespace) as server:
        options = syslog_options("tcp://127.0.0.1:6519", tag="t")
        command = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done"
        own_narud("run", "-d", "--name=talker", *options, "busybox", "sh", "-c", command)
        wait_until(lambda: server.lines)
        own_narud.kill()
        seen = len(server.lines)
        wait_until(lambda: len(server.lines) > seen + 10)
        own_narud.start()
        seen = len(server.lines)
        wait_until(lambda: len(server.lines) > seen + 10)
        assert server.texts == numbers(len(server.texts))


def test_a_courier_that_is_killed_is_followed_by_one_that_goes_on_where_it_was(narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, TCP.format(port=6520), narud.namespace) as server:
        command = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done"
        options = syslog_options("tcp://127.0.0.1:6520", tag="t")
        narud("run", "-d", "--name=talker", *options, "busybox", "sh", "-c", command)
        wait_until(lambda: len(server.lines) > 10)
        killed = couriers(narud)
        os.kill(killed[0], 9)
        seen = len(server.lines)
        wait_until(lambda: len(server.lines) > seen + 150)
        received = list(dict.fromkeys(server.texts))  # the last before the kill may have come twice
        assert received == numbers(len(received)) and couriers(narud) != killed


def test_a_courier_ends_when_its_shim_is_killed(narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, TCP.format(port=6525), narud.namespace) as server:
        options = syslog_options("tcp://127.0.0.1:6525", tag="t")
        identifier = narud("run", "-d", *options, "busybox", "sh", "-c", "echo here; sleep 600")
        shim = wait_until(lambda: [one for one in narud.namespace.processes() if f"naru-shim {identifier}" in one])
        wait_until(lambda: couriers(narud))
        os.kill(int(shim[0].partition(":")[0]), 9)
        wait_until(lambda: not couriers(narud))
        wait_until(lambda: server.texts == ["here"])


def test_what_a_stopped_container_could_not_deliver_goes_out_with_its_next_start(narud: Daemon, tmp_path: Path) -> None:
    options = syslog_options("tcp://127.0.0.1:6521", tag="t")
    narud("run", "--name=talker", *options, "busybox", "echo", "kept")
    wait_until(lambda: not couriers(narud), 20)
    with rsyslog(tmp_path, TCP.format(port=6521), narud.namespace) as server:
        narud("start", "talker")
        wait_until(lambda: len(server.texts) == 2)
        assert server.texts == ["kept", "kept"]


def test_a_slow_server_stalls_nobody_and_the_file_stays_bounded(narud: Daemon, tmp_path: Path) -> None:
    listener = narud.namespace.call(listening, ("127.0.0.1", 6522))  # accepts in the kernel, and never reads
    options = syslog_options("tcp://127.0.0.1:6522", cache_max_size="200k", cache_max_file="3", cache_compress="false")
    command = "head -c 20000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo done"
    narud("run", "-d", "--name=flood", *options, "busybox", "sh", "-c", command)
    assert narud("wait", "flood") == "0"
    courier = Path(f"/proc/{couriers(narud)[0]}")
    assert [each.name for each in (courier / "task").iterdir()] == [courier.name]
    assert int((courier / "statm").read_text().split()[1]) * 4 < 20_000  # KB
    assert narud("logs", "--tail=1", "flood") == "done"
    directory = narud.data / "containers" / narud("inspect", "--format={{.Id}}", "flood")
    assert sum(file.stat().st_size for file in directory.glob("*-json.log*")) < 1_000_000
    listener.close()
    wait_until(lambda: not couriers(narud))


def test_blocking_mode_waits_for_the_server_and_loses_nothing(narud: Daemon, tmp_path: Path) -> None:
    with rsyslog(tmp_path, TCP.format(port=6523), narud.namespace) as server:
        options = syslog_options(
            "tcp://127.0.0.1:6523", mode="blocking", tag="t", cache_max_size="100k", cache_max_file="3"
        )
        server.stop()
        narud("run", "-d", "--name=careful", *options, "busybox", "sh", "-c", COUNT.format(n=20_000))
        wait_until(lambda: "the log server takes nothing" in narud.log.read_text())
        directory = narud.data / "containers" / narud("inspect", "--format={{.Id}}", "careful")
        wait_until(lambda: list(directory.glob("*-json.log.2*")) and is_stalled(narud, "careful"), 30)
        server.start()
        assert narud("wait", "careful", timeout_s=60) == "0"
        wait_until(lambda: server.texts and server.texts[-1] == "line 20000", 20)
        assert server.texts == numbers(20_000)


def test_what_a_removed_container_said_is_still_delivered(narud: Daemon) -> None:
    listener = narud.namespace.call(listening, ("127.0.0.1", 6524))  # accepts in the kernel, and reads nothing yet
    options = syslog_options("tcp://127.0.0.1:6524", cache_max_size="500k", cache_max_file="99")
    command = f"yes {'x' * 99} | head -n 150000; echo last"
    narud("run", "--rm", "--detach", "--name=brief", *options, "busybox", "sh", "-c", command)
    narud("wait", "brief")
    wait_until(lambda: narud.docker("inspect", "brief").code == 1)
    receiver = Receiver(listener)
    wait_until(lambda: receiver.data.endswith(b"]: last\n"), 30)
    assert receiver.data.count(b"\n") == 150_001
    receiver.close()


# --- journald


@pytest.fixture
def journal() -> Iterator[Journald]:
    if Journald.SOCKET.exists():
        pytest.skip("this host has a journald of its own")
    journald = Journald()
    yield journald
    journald.close()


def test_a_journal_entry_names_its_container(narud: Daemon, journal: Journald) -> None:
    identifier = narud(
        *("run", "-d", "--name=speaker", "--label=com.example/team=blue", "--env=REGION=north"),
        *("--log-driver=journald", "--log-opt=labels=com.example/team", "--log-opt=env-regex=^REG"),
        *("--log-opt=tag={{.Name}}-{{.ID}}", "busybox", "sh", "-c", "echo out; sleep 0.1; echo err >&2"),
    )
    wait_until(lambda: len(journal.entries(CONTAINER_ID_FULL=identifier)) == 2)
    out, err = journal.entries(CONTAINER_ID_FULL=identifier)
    assert out.pop("SYSLOG_TIMESTAMP") < err.pop("SYSLOG_TIMESTAMP")
    assert (out.pop("MESSAGE"), err.pop("MESSAGE")) == ("out", "err")
    assert (out.pop("PRIORITY"), err.pop("PRIORITY")) == ("6", "3")
    tag = f"speaker-{identifier[:12]}"
    named = {"CONTAINER_ID": identifier[:12], "CONTAINER_ID_FULL": identifier, "CONTAINER_NAME": "speaker"}
    tagged = {"CONTAINER_TAG": tag, "SYSLOG_IDENTIFIER": tag, "IMAGE_NAME": "busybox"}
    assert out == err == {**named, **tagged, "COM_EXAMPLE_TEAM": "blue", "REGION": "north"}


def test_a_long_line_is_several_partial_entries(narud: Daemon, journal: Journald) -> None:
    long = "head -c 40000 /dev/zero | tr '\\0' x; echo"
    narud("run", "--name=long", "--log-driver=journald", "busybox", "sh", "-c", long)
    wait_until(lambda: len(journal.entries(CONTAINER_NAME="long")) == 3)
    entries = journal.entries(CONTAINER_NAME="long")
    assert [len(entry["MESSAGE"]) for entry in entries] == [16384, 16384, 7232]
    assert [entry.get("CONTAINER_PARTIAL_MESSAGE") for entry in entries] == ["true", "true", None]


def test_an_entry_larger_than_a_datagram_arrives_all_the_same(narud: Daemon, journal: Journald) -> None:
    big = ["--env=A=" + "a" * 120_000, "--env=B=" + "b" * 120_000, "--log-opt=env=A,B"]
    narud("run", "--name=big", "--log-driver=journald", *big, "busybox", "echo", "hello")
    wait_until(lambda: journal.entries(CONTAINER_NAME="big"))
    assert len(journal.entries(CONTAINER_NAME="big")[0]["B"]) == 120_000


def test_without_a_journald_the_driver_is_refused(narud: Daemon) -> None:
    if Journald.SOCKET.exists():
        pytest.skip("this host has a journald of its own")
    refused = narud.docker("create", "--log-driver=journald", "busybox")
    assert refused.code == 1
    assert "failed to initialize logging driver: journald is not enabled on this host" in refused.err


# --- fluentd


def fluentd_options(address: str, **options: str) -> list[str]:
    given = {"fluentd-address": address, **{f"fluentd-{name.replace('_', '-')}": v for name, v in options.items()}}
    return ["--log-driver=fluentd", *(f"--log-opt={name}={value}" for name, value in given.items())]


def test_a_forward_server_gets_dockers_record(narud: Daemon) -> None:
    server = ForwardServer(narud.namespace.call(listening, ("127.0.0.1", 24224)))
    identifier = narud(
        *("run", "-d", "--name=speaker", "--label=team=blue", "--log-driver=fluentd"),
        *("--log-opt=tag=docker.{{.Name}}", "--log-opt=labels=team", "busybox", "echo", "hello"),
    )
    wait_until(lambda: server.entries)
    tag, when, record = server.entries[0]
    assert tag == "docker.speaker" and abs(when - time.time()) < 60
    assert record == {
        "container_id": identifier,
        "container_name": "/speaker",
        "source": "stdout",
        "log": "hello",
        "team": "blue",
    }
    server.close()


def test_acknowledged_delivery_survives_a_server_that_forgets(narud: Daemon, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = ForwardServer(listening(path), acknowledges=False)
    options = fluentd_options(f"unix://{path}", request_ack="true", sub_second_precision="true", retry_wait="100ms")
    narud("run", "-d", *options, "busybox", "sh", "-c", COUNT.format(n=200))
    wait_until(lambda: server.chunks)
    server.acknowledges = True
    server.drop()
    wait_until(lambda: server.chunks > 1 and server.logs[-1] == "line 200")
    assert list(dict.fromkeys(server.logs)) == numbers(200)
    assert server.entries[0][1].code == 0 and len(server.entries[0][1].data) == 8
    server.close()


def test_the_pieces_of_a_long_line_can_be_put_together(narud: Daemon) -> None:
    server = ForwardServer(narud.namespace.call(listening, ("127.0.0.1", 24225)))
    command = "head -c 20000 /dev/zero | tr '\\0' x; echo; echo short"
    narud("run", "--rm", *fluentd_options("127.0.0.1:24225"), "busybox", "sh", "-c", command)
    wait_until(lambda: len(server.entries) == 3)
    first, last, short = (record for _, _, record in server.entries)
    assert first["partial_id"] == last["partial_id"]
    assert [(one["partial_ordinal"], one["partial_last"]) for one in (first, last)] == [("1", "false"), ("2", "true")]
    assert "partial_id" not in short
    server.close()


# --- options and settings


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--log-driver=nope"], 'error looking up logging plugin nope: plugin "nope" not found'),
        (["--log-opt=x=1"], "unknown log opt 'x' for json-file log driver"),
        (["--log-driver=local", "--log-opt=x=1"], "unknown log opt 'x' for log driver local"),
        (["--log-driver=syslog", "--log-opt=max-size=1m"], "unknown log opt 'max-size' for syslog log driver"),
        (["--log-driver=fluentd", "--log-opt=x=1"], "unknown log opt 'x' for fluentd log driver"),
        (["--log-driver=syslog", "--log-opt=syslog-facility=x"], "invalid syslog facility"),
        (["--log-driver=syslog", "--log-opt=syslog-format=x"], "Invalid syslog format"),
        (["--log-driver=syslog", "--log-opt=syslog-address=gopher://a"], "unsupported scheme: 'gopher'"),
        (["--log-driver=syslog", "--log-opt=syslog-address=unix:///no"], "stat /no: no such file or directory"),
        (
            ["--log-driver=fluentd", "--log-opt=fluentd-address=udp://a"],
            "invalid fluentd-address (udp://a): unsupported scheme: 'udp'",
        ),
        (
            ["--log-driver=syslog", "--log-opt=syslog-address=tcp+tls://a", "--log-opt=syslog-tls-ca-cert=/no"],
            "failed to initialize logging driver: [Errno 2] No such file or directory",
        ),
        (["--log-opt=mode=x"], "logger: logging mode not supported: x"),
        (
            ["--log-opt=max-buffer-size=1m"],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (["--log-opt=tag={{.Nope}}"], "can't evaluate field Nope in type *logger.Info"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_dockers_words(narud: Daemon, arguments: list[str], reason: str) -> None:
    refused = narud.docker("create", *arguments, "busybox")
    assert refused.code == 1 and reason in refused.err


def test_labels_variables_and_the_tag_are_in_every_line_of_the_file(narud: Daemon) -> None:
    narud(
        *("run", "--name=labelled", "--label=team=blue", "--label=other=1", "--env=REGION=north", "--env=RED=1"),
        *("--log-opt=labels-regex=^te", "--log-opt=env=REGION", "--log-opt=tag={{.Name | upper}}/{{.ImageName}}"),
        *("busybox", "echo", "hello"),
    )
    line = json.loads(Path(narud("inspect", "--format={{.LogPath}}", "labelled")).read_text())
    assert line["attrs"] == {"team": "blue", "REGION": "north", "tag": "LABELLED/busybox"}
    assert narud("logs", "--details", "labelled") == "REGION=north,tag=LABELLED%2Fbusybox,team=blue hello"


def test_a_disabled_cache_cannot_be_read(narud: Daemon) -> None:
    options = syslog_options("udp://127.0.0.1:6599", cache_disabled="true")
    narud("run", "--name=silent", *options, "busybox", "echo", "hello")
    assert "configured logging driver does not support reading" in narud.docker("logs", "silent").err


def test_the_daemons_driver_and_options_are_the_default(busybox_archive: Path) -> None:
    daemon = Daemon("--log-driver=json-file", "--log-opt=max-size=10k", "--log-opt=tag={{.Name}}")
    try:
        daemon("load", "--input", str(busybox_archive))
        daemon("create", "--name=plain", "busybox")
        daemon("create", "--name=own", "--log-opt=max-size=5k", "busybox")
        daemon("create", "--name=other", "--log-driver=local", "busybox")
        shown = "{{json .HostConfig.LogConfig}}"
        configs = [json.loads(daemon("inspect", f"--format={shown}", name)) for name in ("plain", "own", "other")]
        assert configs == [
            {"Type": "json-file", "Config": {"max-size": "10k", "tag": "{{.Name}}"}},
            {"Type": "json-file", "Config": {"max-size": "5k", "tag": "{{.Name}}"}},
            {"Type": "local", "Config": {}},
        ]
        assert daemon("info", "--format={{.LoggingDriver}} {{.Plugins.Log}}") == (
            "json-file [fluentd journald json-file local syslog]"
        )
    finally:
        daemon.close()


def test_a_daemon_whose_log_options_cannot_be_does_not_start(tmp_path: Path) -> None:
    flags = ["--log-opt=nope=1", f"--data-root={tmp_path}/d", f"--exec-root={tmp_path}/r"]
    program = [sys.executable, "-c", "from naru.daemon.run import run; import sys; sys.exit(run(sys.argv[1:], None))"]
    ended = subprocess.run([*program, *flags], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "src"})
    assert ended.returncode == 1
    assert "failed to set log opts: unknown log opt 'nope' for json-file log driver" in ended.stderr
