"""The content store: what is there is whole, what is wrong leaves nothing, what is leased stays."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from naru.content.store import ContentStore
from naru.errors import Corrupt, InvalidArgument, NotFound
from naru.oci import digest
from naru.oci.digest import Digest
from naru.oci.image import Descriptor


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path)


def _files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_a_committed_blob_is_read_back_by_its_digest(store: ContentStore) -> None:
    descriptor = store.put(b"hello", "text/plain")
    assert descriptor == Descriptor(media_type="text/plain", digest=digest.of(b"hello"), size=5)
    assert store.read(descriptor.digest) == b"hello"
    assert [blob.digest for blob in store.blobs()] == [descriptor.digest]


def test_nothing_is_visible_before_commit_and_nothing_left_without_it(store: ContentStore, tmp_path: Path) -> None:
    with store.ingest() as writer:
        writer.write(b"half")
        assert not store.exists(writer.digest)
    assert _files(tmp_path) == []


def test_wrong_bytes_are_corrupt_and_leave_nothing(store: ContentStore, tmp_path: Path) -> None:
    expected = Descriptor(digest=digest.of(b"right"), size=5)
    with pytest.raises(Corrupt):
        store.put_stream(io.BytesIO(b"wrong"), expected)
    assert _files(tmp_path) == []


def test_a_byte_too_many_is_refused_as_it_arrives(store: ContentStore) -> None:
    with store.ingest(Descriptor(digest=digest.of(b"right"), size=5)) as writer, pytest.raises(Corrupt):
        writer.write(b"right!")


def test_a_short_blob_is_corrupt(store: ContentStore) -> None:
    with pytest.raises(Corrupt):
        store.put_stream(io.BytesIO(b"righ"), Descriptor(digest=digest.of(b"right"), size=5))


def test_bytes_changed_on_disk_are_noticed(store: ContentStore) -> None:
    descriptor = store.put(b"hello")
    store.path(descriptor.digest).write_bytes(b"jello")
    with pytest.raises(Corrupt):
        store.read(descriptor.digest)


def test_sha512_blobs_are_verified_too(store: ContentStore) -> None:
    import hashlib

    name = Digest(f"sha512:{hashlib.sha512(b'x').hexdigest()}")
    store.put_stream(io.BytesIO(b"x"), Descriptor(digest=name, size=1))
    assert store.read(name) == b"x"


@pytest.mark.parametrize("name", ["sha256:../../etc/passwd", "sha256:" + "0" * 63, "../x"])
def test_a_name_that_is_no_digest_never_becomes_a_path(store: ContentStore, name: str) -> None:
    with pytest.raises(InvalidArgument):
        store.path(Digest(name))


def test_an_absent_blob_is_not_found(store: ContentStore) -> None:
    with pytest.raises(NotFound):
        store.open(digest.of(b"absent"))


def test_collection_takes_what_nobody_keeps(store: ContentStore) -> None:
    kept, dropped = store.put(b"kept"), store.put(b"dropped")
    assert [blob.digest for blob in store.collect({kept.digest})] == [dropped.digest]
    assert store.exists(kept.digest)


def test_what_is_committed_or_held_under_a_lease_survives_collection(store: ContentStore) -> None:
    before, other = store.put(b"before"), store.put(b"other")
    with store.lease() as lease:
        assert lease.hold(before.digest)
        assert not lease.hold(digest.of(b"absent"))
        during = store.put(b"during")
        assert {blob.digest for blob in store.collect(set())} == {other.digest}
        assert store.exists(during.digest)
    assert {blob.digest for blob in store.collect(set())} == {before.digest, during.digest}


def test_a_blob_committed_again_under_a_lease_is_kept_by_it(store: ContentStore) -> None:
    store.put(b"again")
    with store.lease():
        store.put(b"again")
        assert store.collect(set()) == []


def test_a_new_process_removes_unfinished_writes(store: ContentStore, tmp_path: Path) -> None:
    writer = store.ingest()
    writer.write(b"half")
    ContentStore(tmp_path).recover()
    assert _files(tmp_path) == []
