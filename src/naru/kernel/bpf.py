"""bpf(2): loading a cgroup device program and attaching it to a cgroup. linux/bpf.h"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from naru.kernel.libc import syscall

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_DETACH = 9
_BPF_PROG_GET_FD_BY_ID = 13
_BPF_PROG_QUERY = 16
_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MAX_ATTACHED = 64  # BPF_CGROUP_MAX_PROGS
_LOG_BYTES = 1 << 16

_bpf = syscall("bpf", _NUMBERS.get(os.uname().machine, -1), ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def _call(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _bpf(command, ctypes.byref(buffer), len(attributes)), buffer.raw


def prog_load(kind: int, program: bytes, name: str) -> int:
    """Check and load `program` (8-byte instructions); return its descriptor, close-on-exec, owned by the caller.

    OSError: EPERM without CAP_BPF (CAP_SYS_ADMIN before Linux 5.8), or over RLIMIT_MEMLOCK before 5.11; EINVAL or
    EACCES if the verifier refuses it, with the verifier's last words. BPF_PROG_LOAD, bpf(2)
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        log_address = ctypes.addressof(log) if log is not None else 0
        attributes = struct.pack(
            "=IIQQIIQII16s",
            *(kind, len(program) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
            *(1 if log is not None else 0, len(log) if log is not None else 0, log_address),
            *(0, 0, name.encode()[:15]),
        )
        return _call(_BPF_PROG_LOAD, attributes)[0]

    try:
        return load(None)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return load(log)
    except OSError as error:
        words = log.value.decode(errors="replace").strip().rpartition("\n")[2]
        raise OSError(error.errno, f"bpf: program refused: {words}") from None


def prog_attach(cgroup_fd: int, program_fd: int, attach_type: int, flags: int, replace_fd: int = 0) -> None:
    """Attach a program to a cgroup; with BPF_F_REPLACE (Linux 5.6), atomically in place of `replace_fd`. bpf(2)"""
    _call(_BPF_PROG_ATTACH, struct.pack("=IIIII", cgroup_fd, program_fd, attach_type, flags, replace_fd))


def prog_detach(cgroup_fd: int, program_fd: int, attach_type: int) -> None:
    """Take a program off a cgroup. OSError: ENOENT if it is not attached there. BPF_PROG_DETACH, bpf(2)"""
    _call(_BPF_PROG_DETACH, struct.pack("=IIII", cgroup_fd, program_fd, attach_type, 0))


def prog_query(cgroup_fd: int, attach_type: int) -> list[int]:
    """Return the ids of the programs attached to this very cgroup. BPF_PROG_QUERY, bpf(2)"""
    ids = (ctypes.c_uint32 * _MAX_ATTACHED)()
    attributes = struct.pack("=IIIIQII", cgroup_fd, attach_type, 0, 0, ctypes.addressof(ids), len(ids), 0)
    _, answer = _call(_BPF_PROG_QUERY, attributes)
    count: int = struct.unpack_from("=I", answer, 24)[0]
    return list(ids[:count])


def prog_fd_by_id(program_id: int) -> int:
    """Return a new descriptor of a loaded program. OSError: ENOENT if it is gone. BPF_PROG_GET_FD_BY_ID, bpf(2)"""
    return _call(_BPF_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))[0]
