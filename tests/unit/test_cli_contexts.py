"""Which daemon is meant, and contexts as files: the environment's order, TLS material, ssh addresses."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from naru.cli.config_file import ConfigFile
from naru.cli.context_store import Context, ContextStore, check_name, meant
from naru.client import ssh
from naru.client.address import resolve
from naru.errors import InvalidArgument, NotFound


@pytest.mark.parametrize(
    ("asked", "has_host", "environment", "name"),
    [
        ("", False, {}, "chosen"),
        ("", False, {"DOCKER_CONTEXT": "variable"}, "variable"),
        ("", False, {"DOCKER_CONTEXT": "variable", "DOCKER_HOST": "unix:///x"}, "default"),
        ("", False, {"NARU_HOST": "unix:///x"}, "default"),
        ("", True, {"DOCKER_CONTEXT": "variable"}, "default"),
        ("flag", False, {"DOCKER_CONTEXT": "variable", "DOCKER_HOST": "unix:///x"}, "flag"),
    ],
)
def test_the_context_that_is_meant(
    tmp_path: Path, asked: str, has_host: bool, environment: dict[str, str], name: str
) -> None:
    config = ConfigFile(str(tmp_path))
    config.set("currentContext", "chosen")
    assert meant(asked, has_host=has_host, environment=environment, config=config) == name


def _context(name: str, host: str, **endpoint: object) -> dict[str, object]:
    return {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, **endpoint}}}


def test_a_contexts_address_has_its_tls_files(tmp_path: Path) -> None:
    store = ContextStore(str(tmp_path))
    store.put(Context(_context("lab", "tcp://lab"), {"ca": b"ca", "key": b"key"}))
    address = store.address("lab")
    assert (address.host, address.port) == ("lab", 2376)
    assert address.tls is not None
    assert (Path(address.tls.authority).read_bytes(), address.tls.certificate) == (b"ca", "")
    assert Path(address.tls.key).stat().st_mode & 0o777 == 0o600
    assert address.tls.is_verified


def test_a_context_may_skip_the_servers_proof_or_do_without_tls(tmp_path: Path) -> None:
    store = ContextStore(str(tmp_path))
    store.put(Context(_context("careless", "tcp://lab", SkipTLSVerify=True), {}))
    store.put(Context(_context("plain", "tcp://lab:1"), {}))
    careless = store.address("careless").tls
    assert careless is not None
    assert not careless.is_verified
    assert store.address("plain").tls is None


def test_tls_files_that_a_context_has_no_more_are_removed(tmp_path: Path) -> None:
    store = ContextStore(str(tmp_path))
    store.put(Context(_context("lab", "tcp://lab"), {"ca": b"ca"}))
    store.put(Context(_context("lab", "tcp://lab"), {}))
    assert store.get("lab").tls == {}


def test_what_is_no_context_is_passed_over_in_the_list(tmp_path: Path) -> None:
    store = ContextStore(str(tmp_path))
    store.put(Context(_context("b", "unix:///b"), {}))
    store.put(Context(_context("a", "unix:///a"), {}))
    (tmp_path / "contexts/meta/junk").mkdir()
    assert store.names() == ["a", "b"]
    store.remove("a")
    assert store.names() == ["b"]
    with pytest.raises(NotFound, match=r'context "a": context not found: open .*/meta.json: no such file or directory'):
        store.address("a")


@pytest.mark.parametrize("name", ["default", "", "a/b", "-a", "a b"])
def test_names_that_no_context_may_have(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


def test_an_ssh_address_becomes_a_command_line() -> None:
    remote = resolve("ssh://me@web:2222/run/it's.sock", {}).ssh
    assert remote is not None
    *words, script = ssh.command(remote)
    assert words == ["ssh", "-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "2222", "--", "web"]
    shell, option, inner = shlex.split(script)
    assert (shell, option) == ("sh", "-c")
    first = shlex.split(inner.split("&& ")[1].split(";")[0])
    assert first == ["exec", "naru", "--host", "unix:///run/it's.sock", "system", "dial-stdio"]


@pytest.mark.parametrize(
    "text", ["ssh://", "ssh://me:secret@web", "ssh://-oProxyCommand=x", "ssh://web/a?b", "ssh://web:x"]
)
def test_what_is_no_ssh_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse docker host"):
        resolve(text, {})
