"""Whom the registry client believes: TLS handshakes in memory between its context and a server's."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
from registry import make_certificates

from naru.distribution.trust import is_insecure, tls_context
from naru.errors import InvalidArgument

HOST = "10.9.8.7:5000"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"), "10.9.8.7")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """`certs.d` with a directory for HOST."""
    (tmp_path / HOST).mkdir()
    return tmp_path


def shake_hands(client_context: ssl.SSLContext, certificates: Path, *, wants_certificate: bool = False) -> None:
    """Both sides to the end; SSLError as either sees it."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    server_context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    server_context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_NONE
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the client's certificate is part of the handshake
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="10.9.8.7")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _turn in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert waiting == []


def test_an_unknown_authority_is_not_believed(directory: Path, certificates: Path) -> None:
    context = tls_context(HOST, insecure=False, directories=[directory])
    with pytest.raises(ssl.SSLCertVerificationError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(context, certificates)


def test_an_authority_named_for_the_registry_is_believed_and_only_for_it(directory: Path, certificates: Path) -> None:
    shutil.copy(certificates / "ca.pem", directory / HOST / "ca.crt")
    shake_hands(tls_context(HOST, insecure=False, directories=[directory]), certificates)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls_context("10.9.8.7", insecure=False, directories=[directory]), certificates)


def test_the_hosts_bundle_is_believed(directory: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    shake_hands(tls_context(HOST, insecure=False, directories=[directory]), certificates)


def test_an_insecure_registry_may_show_any_certificate(directory: Path, certificates: Path) -> None:
    shake_hands(tls_context(HOST, insecure=True, directories=[directory]), certificates)


def test_a_registry_that_asks_for_a_certificate_is_shown_ours(directory: Path, certificates: Path) -> None:
    shutil.copy(certificates / "ca.pem", directory / HOST / "ca.crt")
    with pytest.raises(ssl.SSLError):
        shake_hands(tls_context(HOST, insecure=False, directories=[directory]), certificates, wants_certificate=True)
    shutil.copy(certificates / "cert.pem", directory / HOST / "us.cert")
    shutil.copy(certificates / "key.pem", directory / HOST / "us.key")
    shake_hands(tls_context(HOST, insecure=False, directories=[directory]), certificates, wants_certificate=True)


def test_what_is_in_the_directory_and_cannot_be_used_is_named(directory: Path, certificates: Path) -> None:
    shutil.copy(certificates / "cert.pem", directory / HOST / "us.cert")
    with pytest.raises(InvalidArgument, match=r"missing key us\.key for client certificate us\.cert\. Note that CA"):
        tls_context(HOST, insecure=False, directories=[directory])
    (directory / HOST / "us.cert").unlink()
    (directory / HOST / "ca.crt").write_text("nonsense")
    with pytest.raises(InvalidArgument, match=r"10\.9\.8\.7:5000/ca\.crt: "):
        tls_context(HOST, insecure=False, directories=[directory])


def test_only_this_machine_and_named_registries_may_be_insecure() -> None:
    named = ["10.1.0.0/16", "hub.test:5000"]
    hosts = ["127.3.0.1:5000", "localhost", "[::1]:5000", "10.1.2.3", "hub.test:5000", "hub.test", "registry.test"]
    assert [is_insecure(host, named) for host in hosts] == [True, True, True, True, True, False, False]
