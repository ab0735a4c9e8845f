"""What COPY and ADD see and write, without any container: patterns, ignore files, trees, archives, ownership."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from naru.build.config import exposed_ports, inherit
from naru.build.context import open_context
from naru.build.copying import plan_copy
from naru.build.dockerfile import parse
from naru.build.filetree import Tree, fingerprint, select, walk
from naru.build.instructions import Add, Copy
from naru.build.ownership import ModeChange, resolve_owner
from naru.build.patterns import PathRules, compile_pattern, read_ignore_file
from naru.build.untar import untar
from naru.errors import InvalidArgument, NotFound, Unsupported

Layout = dict[str, str | bytes | None]


def make(root: Path, files: Layout) -> int:
    """Write `files` (None: a directory, `-> x`: a symlink) below `root` and return it opened."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return os.open(root, os.O_RDONLY | os.O_DIRECTORY)


def layout(root: Path) -> Layout:
    found: Layout = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = path.read_text()
    return found


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A place for the context and one for the image."""
    context, image = tmp_path / "context", tmp_path / "image"
    context.mkdir()
    image.mkdir()
    yield context, image


def instruction(text: str) -> Copy | Add:
    found = parse(f"FROM scratch\n{text}\n".encode()).stages[0].instructions[0]
    assert isinstance(found, Copy | Add)
    return found


def copied(roots: tuple[Path, Path], text: str, context: Layout, image: Layout, *, ignore: str = "") -> Layout:
    """Carry out `text` and return what the image holds afterwards."""
    source, target = make(roots[0], context), make(roots[1], image)
    tree = Tree(source, PathRules(read_ignore_file(ignore.encode())), (os.getuid(), os.getgid()))
    plan = plan_copy(instruction(text), tree, inherit(None).config)
    plan.write(target, time_ns=None)
    os.close(source)
    os.close(target)
    return layout(roots[1])


# --- patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "is_match"),
    [
        ("*.go", "a.go", True),
        ("*.go", "x/a.go", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[]a]", "]", True),
        ("arr[[]0].txt", "arr[0].txt", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a+b", "a+b", True),
    ],
)
def test_a_pattern_matches_as_gos_filepath_does(pattern: str, path: str, is_match: bool) -> None:
    assert bool(compile_pattern(pattern, double_star=False).fullmatch(path)) is is_match


@pytest.mark.parametrize(
    ("ignore", "path", "is_hidden"),
    [
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("**/*.md", "docs/a/README.md", True),
        ("**/*.md", "README.md", True),
        ("docs", "docs/a/b", True),
        ("/docs/", "docs/a", True),
        ("docs", "documents", False),
        ("*/temp*", "a/temporary.txt", True),
        ("*/*/temp*", "a/temporary.txt", False),
        ("temp?", "tempa", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
        ("docs\n!docs/keep", "docs/keep/x", False),
        ("*\n!src", "src/a", False),
        ("*\n!src", "other", True),
        ("**", "a/b", True),
        ("foo/**", "foo/a/b", True),
        ("foo/**", "foo", False),
        ("# comment\n\n  a  ", "a", True),
        ("a/../b", "b", True),
        ("dir/**/file", "dir/file", True),
        (".", "anything", False),
    ],
)
def test_an_ignore_file_hides_what_docker_hides(ignore: str, path: str, is_hidden: bool) -> None:
    assert PathRules(read_ignore_file(ignore.encode())).excludes(path) is is_hidden


def test_a_lone_exclamation_mark_is_refused() -> None:
    with pytest.raises(InvalidArgument, match='illegal exclusion pattern: "!"'):
        PathRules(read_ignore_file(b"!\n"))


# --- COPY -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "context", "image", "result"),
    [
        ("COPY a /b", {"a": "1"}, {}, {"b": "1"}),
        ("COPY a /b/", {"a": "1"}, {}, {"b": None, "b/a": "1"}),
        ("COPY a /b", {"a": "1"}, {"b": None}, {"b": None, "b/a": "1"}),
        ("COPY a b /d/", {"a": "1", "b": "2"}, {}, {"d": None, "d/a": "1", "d/b": "2"}),
        ("COPY d /t", {"d/x": "1", "d/s/y": "2"}, {}, {"t": None, "t/x": "1", "t/s": None, "t/s/y": "2"}),
        ("COPY d/ /t/", {"d/x": "1"}, {"t/old": "0"}, {"t": None, "t/old": "0", "t/x": "1"}),
        ("COPY . .", {"x": "1", "l": "-> x"}, {}, {"x": "1", "l": "-> x"}),
        ("COPY *.txt /d/", {"a.txt": "1", "b.txt": "2", "c.md": "3"}, {}, {"d": None, "d/a.txt": "1", "d/b.txt": "2"}),
        ("COPY l /b", {"real": "1", "l": "-> real"}, {}, {"b": "1"}),
        ("COPY l /b", {"real/x": "1", "l": "-> /real"}, {}, {"b": None, "b/x": "1"}),
        ("COPY a /l/b", {"a": "1"}, {"real": None, "l": "-> real"}, {"l": "-> real", "real": None, "real/b": "1"}),
        ("COPY a /l/b", {"a": "1"}, {"r": None, "l": "-> /r"}, {"l": "-> /r", "r": None, "r/b": "1"}),
        ("COPY a /up/b", {"a": "1"}, {"up": "-> ../../.."}, {"b": "1", "up": "-> ../../.."}),
        ("COPY ../../a /b", {"a": "1"}, {}, {"b": "1"}),
        ("COPY a /b", {"a": "1"}, {"b": "-> target"}, {"b": "1"}),
        ("COPY --exclude=*.md d /t", {"d/x.md": "1", "d/y": "2"}, {}, {"t": None, "t/y": "2"}),
        ("COPY --parents x/y/a /t/", {"x/y/a": "1"}, {}, {"t": None, "t/x": None, "t/x/y": None, "t/x/y/a": "1"}),
        ("COPY --parents x/./y/a /t/", {"x/y/a": "1"}, {}, {"t": None, "t/y": None, "t/y/a": "1"}),
        (
            "COPY --parents **/*.go /t/",
            {"a.go": "1", "p/b.go": "2"},
            {},
            {"t": None, "t/a.go": "1", "t/p": None, "t/p/b.go": "2"},
        ),
        ("COPY <<x /d/\nhi\nx", {}, {}, {"d": None, "d/x": "hi\n"}),
        ("COPY <<x /d\nhi\nx", {}, {}, {"d": "hi\n"}),
        ("ADD --unpack=false a.txt /", {"a.txt": "1"}, {}, {"a.txt": "1"}),
    ],
)
def test_copy_puts_files_where_docker_does(
    roots: tuple[Path, Path], text: str, context: Layout, image: Layout, result: Layout
) -> None:
    assert copied(roots, text, context, image) == result


def test_what_the_ignore_file_hides_is_not_copied_but_its_exceptions_are(roots: tuple[Path, Path]) -> None:
    context: Layout = {"a": "1", "d/x": "2", "d/keep/y": "3", "e/z": "4"}
    result = copied(roots, "COPY . /", context, {}, ignore="a\nd\ne\n!d/keep\n")
    assert result == {"d": None, "d/keep": None, "d/keep/y": "3"}


@pytest.mark.parametrize(
    ("text", "context", "image", "kind", "message"),
    [
        (
            "COPY gone /",
            {},
            {},
            NotFound,
            "file not found in build context or excluded by .dockerignore: stat gone: file does not exist",
        ),
        ("COPY *.go /", {}, {}, NotFound, "no source files were specified"),
        ("COPY a b /c", {"a": "", "b": ""}, {}, InvalidArgument, "When using COPY with more than one source file"),
        ("COPY a /b/c", {"a": ""}, {"b": "file"}, InvalidArgument, "/b is not a directory"),
        ("COPY d /t", {"d/x/y": ""}, {"t/x": "file"}, InvalidArgument, "cannot copy to non-directory: x"),
        ("COPY a /b/", {"a": ""}, {"b/a/c": ""}, InvalidArgument, "cannot replace directory"),
        ("COPY l /", {"l": "-> ../../etc/shadow"}, {}, NotFound, "stat l: file does not exist"),
        ("COPY --chmod=rwx a /", {"a": ""}, {}, InvalidArgument, "invalid chmod parameter: 'rwx'"),
        ("COPY --chown=nobody9 a /", {"a": ""}, {}, NotFound, "unable to find user nobody9"),
        ("ADD https://example.com/x /", {}, {}, Unsupported, "not supported yet"),
    ],
)
def test_a_copy_that_cannot_be_done_says_why(
    roots: tuple[Path, Path], text: str, context: Layout, image: Layout, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message.replace("(", r"\(")):
        copied(roots, text, context, image)


def test_chmod_chown_modes_times_and_xattrs_travel(roots: tuple[Path, Path]) -> None:
    source = make(roots[0], {"d/tool": "x", "plain": "y"})
    tool = roots[0] / "d/tool"
    tool.chmod(0o755)
    os.utime(tool, (1000, 1000))
    os.setxattr(tool, "user.note", b"n")
    target = make(roots[1], {"etc/passwd": "app:x:70:71::/:/bin/sh\n"})
    config = inherit(None).config
    plan_copy(instruction("COPY --chown=app --chmod=u+s,go-rwx d /o"), Tree(source), config).write(target, time_ns=None)
    status = os.stat(roots[1] / "o/tool")
    assert (status.st_uid, status.st_gid) == (70, 71)
    assert stat.S_IMODE(status.st_mode) == 0o4700
    assert status.st_mtime == 1000
    assert os.getxattr(roots[1] / "o/tool", "user.note") == b"n"


def test_a_fingerprint_changes_with_content_mode_and_target_but_not_with_time(tmp_path: Path) -> None:
    root = make(tmp_path, {"d/a": "1", "d/l": "-> a"})
    tree = Tree(root, owner=(0, 0))
    before = fingerprint(tree, select(tree, "d"))
    os.utime(tmp_path / "d/a", (1, 1))
    assert fingerprint(tree, select(tree, "d")) == before
    (tmp_path / "d/a").chmod(0o600)
    with_mode = fingerprint(tree, select(tree, "d"))
    (tmp_path / "d/a").write_text("2")
    with_content = fingerprint(tree, select(tree, "d"))
    (tmp_path / "d/l").unlink()
    (tmp_path / "d/l").symlink_to("b")
    assert len({before, with_mode, with_content, fingerprint(tree, select(tree, "d"))}) == 4


def test_a_walk_is_in_order_parents_first(tmp_path: Path) -> None:
    root = make(tmp_path, {"d/b/x": "", "d/a": "", "d/c": ""})
    (source,) = select(Tree(root), "d")
    assert [entry.path for entry in walk(Tree(root), source)] == ["a", "b", "b/x", "c"]


# --- ADD and contexts -------------------------------------------------------------------------------------------------


def archive(members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    stream.seek(0)
    return stream


def member(name: str, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("compression", ["", ":gz", ":bz2", ":xz"])
def test_add_unpacks_an_archive_whatever_its_compression(roots: tuple[Path, Path], compression: str) -> None:
    stream = archive(
        [
            (member("d", type=tarfile.DIRTYPE, mode=0o750), b""),
            (member("d/f", mode=0o640), b"hello"),
            (member(".wh.x"), b"literal"),
            (member("l", type=tarfile.SYMTYPE, linkname="d/f"), b""),
            (member("h", type=tarfile.LNKTYPE, linkname="d/f"), b""),
        ],
        "w" + compression,
    )
    result = copied(roots, "ADD rootfs.bin /o", {"rootfs.bin": stream.getvalue()}, {})
    assert result == {"o": None, "o/.wh.x": "literal", "o/d": None, "o/d/f": "hello", "o/h": "hello", "o/l": "-> d/f"}
    assert stat.S_IMODE(os.stat(roots[1] / "o/d").st_mode) == 0o750
    assert os.stat(roots[1] / "o/h").st_nlink == 2


@pytest.mark.parametrize(
    "hostile",
    [
        [(member("../escape"), b"x")],
        [(member("a/../../escape"), b"x")],
        [(member("h", type=tarfile.LNKTYPE, linkname="../../etc/passwd"), b"")],
        [(member("h", type=tarfile.LNKTYPE, linkname="gone"), b"")],
    ],
)
def test_an_archive_that_reaches_outside_is_refused(
    tmp_path: Path, hostile: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(InvalidArgument, match="unpack archive"):
        untar(archive(hostile), make(inside, {}))
    assert sorted(os.listdir(tmp_path)) == ["inside"]


def test_a_symlink_in_an_archive_leads_nowhere_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    stream = archive([(member("l", type=tarfile.SYMTYPE, linkname=str(outside)), b""), (member("l/x"), b"x")])
    with pytest.raises(InvalidArgument, match="unpack"):
        untar(stream, make(inside, {}))
    assert list(outside.iterdir()) == []


def test_a_context_cut_short_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    cut = io.BytesIO(archive([(member("Dockerfile"), b"F" * 5000)]).getvalue()[:2000])
    with pytest.raises(InvalidArgument), open_context(cut, dockerfile="", directory=tmp_path / "build"):
        pass
    assert list((tmp_path / "build").iterdir()) == []


def test_a_context_is_read_with_its_own_ignore_file_and_goes_afterwards(tmp_path: Path) -> None:
    stream = archive(
        [
            (member("a.Dockerfile"), b"FROM scratch\n"),
            (member("a.Dockerfile.dockerignore"), b"secret\n"),
            (member(".dockerignore"), b"*\n"),
            (member("secret"), b""),
            (member("open", uid=7), b""),
        ]
    )
    with open_context(stream, dockerfile="./a.Dockerfile", directory=tmp_path) as context:
        assert context.dockerfile == b"FROM scratch\n"
        assert [found.path for found in select(context.tree, "open")] == ["open"]
        with pytest.raises(NotFound):
            select(context.tree, "secret")
    assert list(tmp_path.iterdir()) == []


def test_a_context_without_the_dockerfile_says_which_one_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidArgument, match="Cannot locate specified Dockerfile: x/Dockerfile"),
        open_context(archive([]), dockerfile="x/Dockerfile", directory=tmp_path),
    ):
        pass


# --- small rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "mode", "result"),
    [
        ("644", 0o100755, 0o644),
        ("4755", 0o100644, 0o4755),
        ("u=rwX,go=rX", 0o100644, 0o644),
        ("u=rwX,go=rX", 0o040700, 0o755),
        ("a+x", 0o100644, 0o755),
        ("g=u", 0o100640, 0o660),
        ("+t", 0o040777, 0o1777),
        ("ug+s,o-rwx", 0o100755, 0o6750),
    ],
)
def test_chmod_takes_octal_and_symbolic_modes(change: str, mode: int, result: int) -> None:
    assert ModeChange(change).apply(mode) == result


@pytest.mark.parametrize(
    ("text", "owner"),
    [("5", (5, 5)), ("5:6", (5, 6)), ("app", (70, 71)), ("app:staff", (70, 50)), ("9:staff", (9, 50))],
)
def test_an_owner_is_looked_up_in_the_image(tmp_path: Path, text: str, owner: tuple[int, int]) -> None:
    root = make(tmp_path, {"etc/passwd": "root:x:0:0\napp:x:70:71::/:\n", "etc/group": "staff:x:50:\n"})
    assert resolve_owner(text, root) == owner


@pytest.mark.parametrize(
    ("text", "ports"),
    [("80", ["80/tcp"]), ("53/UDP", ["53/udp"]), ("8000-8002", ["8000/tcp", "8001/tcp", "8002/tcp"])],
)
def test_an_exposed_port_has_a_protocol_and_a_range_is_spelled_out(text: str, ports: list[str]) -> None:
    assert exposed_ports(text) == ports


@pytest.mark.parametrize("text", ["http", "0-70000", "80/icmp", "9-8"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid"):
        exposed_ports(text)
