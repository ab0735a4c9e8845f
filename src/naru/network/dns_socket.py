"""The DNS server's address inside a container: 127.0.0.11, whose port 53 leads to sockets on other ports.

A program of the container may have port 53 on every address, 127.0.0.11 included, and notices nothing: only what is
sent to 127.0.0.11:53 is translated, in the container's own namespace.

    table ip naru
      chain dns   (output, nat)   127.0.0.11:53 -> 127.0.0.11:<port of ours>, UDP and TCP
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

from naru.kernel import netns
from naru.kernel.netlink import Message
from naru.kernel.nftables import (
    HOOK_OUTPUT,
    NFPROTO_IPV4,
    PRIORITY_DSTNAT,
    NftablesSocket,
    address_part,
    append_rule,
    base_chain,
    delete_table,
    destination_in,
    destination_port,
    is_protocol,
    load_value,
    port_part,
    table,
    translate_destination,
)
from naru.network.resolv_conf import OWN_SERVER

PORT = 53
_TABLE = "naru"
_CHAIN = "dns"
_BACKLOG = 64
_PROTOCOLS = {socket.SOCK_DGRAM: socket.IPPROTO_UDP, socket.SOCK_STREAM: socket.IPPROTO_TCP}
_ADDRESS_REGISTER, _PORT_REGISTER = 8, 9


def open_sockets(netns_fd: int, ports: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    """Return sockets for UDP and TCP that answer at 127.0.0.11:53 in a namespace.

    Both are non-blocking and the caller's; while they are open the namespace lives. `ports` are those that a daemon
    before us had there, or zeros: taken again, clients that keep a socket for their queries notice nothing.
    """
    return netns.run_inside(netns_fd, lambda: _open_inside(ports))


def _open_inside(ports: tuple[int, int]) -> tuple[socket.socket, socket.socket]:
    with ExitStack() as undo:
        datagrams = _bound(socket.SOCK_DGRAM, ports[0], undo)
        listener = _bound(socket.SOCK_STREAM, ports[1], undo)
        listener.listen(_BACKLOG)
        nftables = NftablesSocket()
        undo.callback(nftables.close)
        has_table = nftables.has_table(NFPROTO_IPV4, _TABLE)
        if not has_table or (_port(datagrams), _port(listener)) != ports:
            nftables.commit(_translation((datagrams, listener), replaces=has_table))
        nftables.close()
        undo.pop_all()
        return datagrams, listener


def _translation(ends: Sequence[socket.socket], *, replaces: bool) -> list[Message]:
    # Deleting costs 7-15 ms, as the kernel waits for readers, and all else 0.3: only where a daemon was before.
    messages = [delete_table(NFPROTO_IPV4, _TABLE)] if replaces else []
    messages += [
        table(NFPROTO_IPV4, _TABLE),
        base_chain(NFPROTO_IPV4, _TABLE, _CHAIN, kind="nat", hook=HOOK_OUTPUT, priority=PRIORITY_DSTNAT),
    ]
    for end in ends:
        messages.append(
            append_rule(
                NFPROTO_IPV4,
                _TABLE,
                _CHAIN,
                destination_in(IPv4Network(OWN_SERVER)),
                is_protocol(_PROTOCOLS[end.type]),
                destination_port(PORT),
                load_value(_ADDRESS_REGISTER, address_part(IPv4Address(OWN_SERVER))),
                load_value(_PORT_REGISTER, port_part(_port(end))),
                translate_destination(NFPROTO_IPV4, _ADDRESS_REGISTER, _PORT_REGISTER),
            )
        )
    return messages


def _port(end: socket.socket) -> int:
    return int(end.getsockname()[1])


def _bound(kind: socket.SocketKind, port: int, undo: ExitStack) -> socket.socket:
    end = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    undo.callback(end.close)
    if kind == socket.SOCK_STREAM:  # connections of a daemon before us may still be in TIME_WAIT
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        end.bind((OWN_SERVER, port))
    except OSError as error:
        if not port or error.errno != errno.EADDRINUSE:
            raise
        end.bind((OWN_SERVER, 0))
    return end
