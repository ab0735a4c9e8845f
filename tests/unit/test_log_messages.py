"""What log servers are sent, byte for byte."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest

from naru.errors import InvalidArgument
from naru.logs import fluentd, journald, syslog
from naru.logs.connection import Address, AddressParts, split_address
from naru.logs.delivery import Delivery
from naru.logs.option_values import boolean, duration_s, size_bytes
from naru.logs.record import Record

RECORD = Record("hello\n", "stdout", "2026-01-02T03:04:05.678901234Z")
ERROR = Record("oh\n", "stderr", "2026-11-22T23:59:59.000000001Z")


class Patient:
    def check(self) -> None:
        pass


def delivery(driver: str, **options: str) -> Delivery:
    return Delivery(
        driver=driver,
        path="/nowhere",
        options={name.replace("_", "-"): value for name, value in options.items()},
        container_id="c" * 64,
        container_name="web",
        image_name="busybox",
        tag="tag",
        attributes={"_com.example/team": "blue"},
    )


@pytest.fixture(params=["UTC", "Europe/Berlin"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_syslog_messages_have_the_lines_own_time_in_the_hosts_zone(zone: str) -> None:
    def message(form: str) -> str:
        return syslog.Syslog(delivery("syslog", syslog_format=form), Patient()).message(RECORD).decode()

    host, pid = socket.gethostname(), os.getpid()
    local, offset = {"UTC": ("03:04:05", "Z"), "Europe/Berlin": ("04:04:05", "+01:00")}[zone]
    assert message("") == f"<30>Jan  2 {local} tag[{pid}]: hello\n"
    assert message("rfc3164") == f"<30>Jan  2 {local} {host} tag[{pid}]: hello\n"
    assert message("rfc5424") == f"<30>1 2026-01-02T{local}{offset} {host} tag {pid} tag - hello\n"
    assert message("rfc5424micro") == f"<30>1 2026-01-02T{local}.678901{offset} {host} tag {pid} tag - hello\n"


@pytest.mark.parametrize(
    ("facility", "priority"), [("", 27), ("kern", 3), ("authpriv", 83), ("local0", 131), ("local7", 187), ("9", 75)]
)
def test_the_facility_and_the_stream_make_the_priority(facility: str, priority: int) -> None:
    sender = syslog.Syslog(delivery("syslog", syslog_facility=facility), Patient())
    assert sender.message(ERROR).startswith(b"<%d>Nov 2" % priority)


def test_only_new_formats_over_tls_are_counted() -> None:
    def message(scheme: str, form: str) -> bytes:
        options = {"syslog_address": f"{scheme}://host", "syslog_format": form}
        return syslog.Syslog(delivery("syslog", **options), Patient()).message(RECORD)

    counted = message("tcp+tls", "rfc5424")
    length, _, rest = counted.partition(b" ")
    assert int(length) == len(rest) and rest.startswith(b"<30>1 ")
    assert message("tcp+tls", "rfc3164").startswith(b"<30>") and message("tcp", "rfc5424").startswith(b"<30>")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("udp://logs.example", Address("udp", "logs.example", 514)),
        ("tcp://[::1]:1514", Address("tcp", "::1", 1514)),
        ("tcp+tls://10.0.0.1:6514", Address("tls", "10.0.0.1", 6514)),
        ("unixgram:///dev/null", Address("unixgram", "/dev/null")),
        ("", None),
    ],
)
def test_a_syslog_address(text: str, address: Address | None) -> None:
    assert syslog.parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address("tcp", "127.0.0.1", 24224)),
        ("logs", Address("tcp", "logs", 24224)),
        (":9", Address("tcp", "127.0.0.1", 9)),
        ("tls://logs:9", Address("tls", "logs", 9)),
        ("unix:///run/fluent.sock", Address("unix", "/run/fluent.sock")),
    ],
)
def test_a_fluentd_address(text: str, address: Address) -> None:
    assert fluentd.parse_address(text) == address


@pytest.mark.parametrize("text", ["tcp://a:99999", "tcp://a:b", "tcp://a/b", "unix:///", "ftp://a"])
def test_a_wrong_fluentd_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid fluentd-address"):
        fluentd.parse_address(text)


def test_an_address_is_taken_apart() -> None:
    assert split_address("TCP://h:1/p?q") == AddressParts("tcp", "h", 1, "/p?q")


def test_a_journal_entry_in_bytes() -> None:
    entry = journald.Journald(delivery("journald"), Patient()).entry(ERROR)
    assert entry.startswith(b"MESSAGE=oh\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-11-22T23:59:59.000000001Z\n")
    assert b"\nCOM_EXAMPLE_TEAM=blue\n" in entry


def test_a_field_with_newlines_has_its_length_in_front() -> None:
    assert journald.encode({"A": "x\ny"}) == b"A\n\x03\0\0\0\0\0\0\0x\ny\n"


def test_a_forward_entry_has_seconds_or_an_event_time() -> None:
    whole = fluentd.Fluentd(delivery("fluentd"), Patient())
    exact = fluentd.Fluentd(delivery("fluentd", fluentd_sub_second_precision="true"), Patient())
    assert whole._time(RECORD) == 1767323045
    assert exact._time(RECORD) == msgspec.msgpack.Ext(
        0, (1767323045).to_bytes(4, "big") + (678901234).to_bytes(4, "big")
    )


def test_option_values_are_gos() -> None:
    assert (size_bytes("10m"), size_bytes("1.5KiB"), size_bytes("7")) == (10 << 20, 1536, 7)
    assert (duration_s("1m30s"), duration_s("250ms"), duration_s("0")) == (90, 0.25, 0)
    assert (boolean("T"), boolean("false")) == (True, False)


@pytest.mark.parametrize(("read", "text"), [(size_bytes, "x"), (duration_s, "5"), (boolean, "yes")])
def test_other_values_are_refused(read: object, text: str) -> None:
    assert callable(read)
    with pytest.raises(InvalidArgument):
        read(text)
