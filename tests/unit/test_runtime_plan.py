"""The runtime's pure parts: options of mounts, user lookup, and the printed plan of a container."""

from __future__ import annotations

import pytest

from naru.errors import InvalidArgument
from naru.kernel import mount as m
from naru.oci.runtime import Hook, Hooks, Mount, Process, State, User
from naru.runtime.create import plan
from naru.runtime.exec import plan_exec
from naru.runtime.identity import look_up
from naru.runtime.mount_options import parse_options
from naru.runtime.rootfs import Overlay
from naru.runtime.step import Refused
from naru.task.spec import base_spec

NEW = frozenset({"mount", "pid", "ipc", "uts", "network", "cgroup"})
PLAN = """\
join a new session keyring
mount source /data
cut the mounts off from the host's
mount overlay at /bundle/rootfs
wait for the cgroup
unshare cgroup namespace
mount proc at /proc
mount tmpfs at /dev
mount devpts at /dev/pts
mount sysfs at /sys
mount mqueue at /dev/mqueue
mount tmpfs at /dev/shm
mount /data at /srv
make devices
make links in /dev
open console
make working directory /srv/app
run createContainer hooks
write sysctl "net.ipv4.ip_forward"
make /proc/sys read-only
mask /proc/kcore
make the root read-only
pivot_root
set host name box
bring the loopback interface up
connect standard streams
give standard streams to the user
close descriptors
chdir to cwd ("/srv/app") set in config.json failed
become the user
chdir to cwd ("/srv/app") set in config.json failed
set no_new_privs"""


def spec_of(**options):
    process = Process(args=["true"], cwd="/srv/app", terminal=True, no_new_privileges=True)
    defaults = {"hostname": "box", "cgroups_path": "/naru/x", "capabilities": [], "seccomp": None}
    return base_spec(process=process, **(defaults | options))


def plan_of(spec, **options):
    layers = Overlay(base="/layers", lower=("2/fs", "1/fs"), upper="3/fs", work="3/work")
    defaults = {"cgroup": None, "state": State(id="x", status="creating", bundle="/bundle"), "new": NEW, "joins": {}}
    return plan(spec, bundle="/bundle", overlay=layers, keyring="k", **(defaults | options))


def test_a_plan_prints_the_steps_in_the_order_they_are_taken():
    spec = spec_of(
        read_only=True,
        mounts=[Mount("/srv", "bind", "/data", ["rbind"])],
        sysctls={"net.ipv4.ip_forward": "1"},
        masked_paths=["/proc/kcore"],
        readonly_paths=["/proc/sys"],
    )
    spec.hooks = Hooks(create_container=[Hook("/bin/hook")])

    assert str(plan_of(spec)) == PLAN


def test_an_exec_changes_nothing_before_it_is_inside():
    process = Process(args=["true"], oom_score_adj=10)

    lines = str(plan_exec(process, spec_of(), 9, 0)).splitlines()

    assert lines[:5] == [
        "set oom_score_adj",
        "join namespaces",
        "wait for the cgroup",
        "enter the PID namespace",
        "connect standard streams",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": {"mount": "host"}}, "a mount namespace of its own"),
        ({"rootfs_propagation": "loud"}, "rootfsPropagation: unknown value 'loud'"),
        ({"sysctls": {"net/../../kernel/panic": "1"}}, "not a parameter's name"),
        ({"mounts": [Mount("/x", "", "", [])]}, "mount /x: no type"),
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_done(change, words):
    new = NEW - {kind for kind, value in change.get("share", {}).items() if value == "host"}

    with pytest.raises(InvalidArgument, match=words):
        plan_of(spec_of(**change), new=new)


def test_options_are_sorted_by_meaning_and_the_last_one_wins():
    options = parse_options(
        ["rbind", "ro", "rw", "nosuid", "rro", "rslave", "size=1m", "noatime", "relatime", "defaults"]
    )

    assert (options.attr_set, options.attr_clr) == (m.MOUNT_ATTR_NOSUID, m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR__ATIME)
    assert options.recursive_set == m.MOUNT_ATTR_RDONLY
    assert options.propagation == ((m.MS_SLAVE, True),)
    assert options.recursive_bind
    assert options.data == (("size", "1m"),)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\n# comment\nbroken\n1234:x:7:8::/seven:\napp:x:1000:1000::/home/app:\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nwheel:x:10:root,app\nbig:x:4294967296:\n")
    return str(tmp_path / "passwd"), str(tmp_path / "group")


@pytest.mark.parametrize(
    ("username", "uid", "gid", "groups", "home"),
    [
        ("app", 1000, 1000, (1000, 10), "/home/app"),
        ("app:wheel", 1000, 10, (10,), "/home/app"),
        ("1000", 1000, 1000, (1000, 10), "/home/app"),
        ("1234", 7, 8, (8,), "/seven"),
        ("99", 99, 0, (0,), "/"),
        ("99:98", 99, 98, (98,), "/"),
        ("root", 0, 0, (0, 10), "/root"),
    ],
)
def test_users_are_found_by_name_before_number(files, username, uid, gid, groups, home):
    found = look_up(User(username=username), *files)

    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    ("username", "words"),
    [
        ("zed", "unable to find user zed: no matching entries in passwd file"),
        ("app:zed", "unable to find group zed: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("app:big", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_users_that_cannot_be_are_refused_in_dockers_words(files, username, words):
    with pytest.raises(Refused, match=f"^{words}$"):
        look_up(User(username=username), *files)


def test_a_passwd_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "passwd")

    assert look_up(User(username="5"), str(tmp_path / "passwd"), str(tmp_path / "none")).uid == 5
