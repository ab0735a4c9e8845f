"""overlayfs as a detached mount, from layers that are directories below one base. Documentation/filesystems/overlayfs

The options that would put state into the upper directory which other readers of it do not expect (`index`,
`metacopy`, `redirect_dir`) are always off: an upper directory is a layer that gets turned into a tar.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from naru.kernel import mount
from naru.kernel.process import CLONE_NEWNS, unshare

_VALUE_MAX = 255  # fsconfig(2) copies at most this many bytes of a string
_PLAIN: list[tuple[str, str | None]] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")]


def overlay(
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    *,
    base: str,
    attributes: int = 0,
    source: str = "overlay",
) -> int:
    """Return a detached overlay mount of `lower` (topmost first) with `upper` and `work`; all relative to `base`.

    Without `upper` and `work` it is read-only; a single lower directory is then simply a read-only bind of it.
    Safe in a process with threads: nothing of the process changes. OSError: EBUSY or EINVAL as overlayfs has it.
    """
    if upper is None and len(lower) == 1:
        tree = mount.open_tree(mount.AT_FDCWD, f"{base}/{lower[0]}", clone=True)
        mount.mount_setattr(tree, attr_set=attributes | mount.MOUNT_ATTR_RDONLY)
        return tree
    base_fd = -1
    prefix = base
    longest = max((*lower, upper or "", work or ""), key=len)
    if len(os.fsencode(f"{base}/{longest}")) > _VALUE_MAX:
        base_fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        prefix = f"/proc/self/fd/{base_fd}"
    try:
        parameters: list[tuple[str, str | None]] = [("source", source), *_PLAIN]
        parameters += [("lowerdir+", f"{prefix}/{path}") for path in lower]
        if upper is not None and work is not None:
            parameters += [("upperdir", f"{prefix}/{upper}"), ("workdir", f"{prefix}/{work}")]
        return mount.new_mount("overlay", parameters, attributes)
    except OSError as error:
        if error.errno != errno.EINVAL or _knows_lowerdir_plus():
            raise
        return overlay_by_options(lower, upper, work, base=base, attributes=attributes, source=source)
    finally:
        if base_fd >= 0:
            os.close(base_fd)


def overlay_by_options(
    lower: Sequence[str],
    upper: str | None,
    work: str | None,
    *,
    base: str,
    attributes: int = 0,
    source: str = "overlay",
) -> int:
    """`overlay` for kernels before 6.5, whose only way in is one page of options to mount(2).

    Paths are kept short by being relative, so a throwaway thread with a mount namespace and working directory of
    its own makes the mount, and hands it out as a detached copy.
    """
    from threading import Thread  # not needed on newer kernels

    options = [f"{key}={value}" for key, value in _PLAIN] + ["lowerdir=" + ":".join(lower)]
    if upper is not None and work is not None:
        options += [f"upperdir={upper}", f"workdir={work}"]
    outcome: list[int | OSError] = []

    def work_in_thread() -> None:
        try:
            unshare(CLONE_NEWNS)
            mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
            os.chdir(base)
            mount.mount(source, base, "overlay", 0, ",".join(options))
            tree = mount.open_tree(mount.AT_FDCWD, base, clone=True)
            mount.mount_setattr(tree, attr_set=attributes)
            outcome.append(tree)
        except OSError as error:
            outcome.append(error)

    thread = Thread(target=work_in_thread)
    thread.start()
    thread.join()
    result = outcome[0]
    if isinstance(result, OSError):
        raise result
    return result


def _knows_lowerdir_plus() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (6, 5)
