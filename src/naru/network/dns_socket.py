"""The DNS server's address inside a container: 127.0.0.11, whose port 53 leads to sockets on other ports.

A program of the container may have port 53 on every address, 127.0.0.11 included, and notices nothing: only what is
sent to 127.0.0.11:53 is translated, in the container's own namespace.

    table ip naru
      chain dns   (output, nat)   127.0.0.11:53 -> 127.0.0.11:<port of ours>, UDP and TCP
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

from naru.kernel import netns
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


def open_sockets(netns_fd: int) -> tuple[socket.socket, socket.socket]:
    """Return sockets for UDP and TCP that answer at 127.0.0.11:53 in a namespace, in place of any there were before.

    Both are non-blocking and the caller's; while they are open the namespace lives.
    """
    return netns.run_inside(netns_fd, _open_inside)


def _open_inside() -> tuple[socket.socket, socket.socket]:
    with ExitStack() as undo:
        datagrams = _bound(socket.SOCK_DGRAM, undo)
        listener = _bound(socket.SOCK_STREAM, undo)
        listener.listen(_BACKLOG)
        nftables = NftablesSocket()
        try:
            # Deleting costs 7-15 ms, as the kernel waits for readers, and all else 0.3: only where a daemon was before.
            is_old = nftables.has_table(NFPROTO_IPV4, _TABLE)
            nftables.commit(
                [
                    *([delete_table(NFPROTO_IPV4, _TABLE)] if is_old else []),
                    table(NFPROTO_IPV4, _TABLE),
                    base_chain(NFPROTO_IPV4, _TABLE, _CHAIN, kind="nat", hook=HOOK_OUTPUT, priority=PRIORITY_DSTNAT),
                    *(
                        append_rule(
                            NFPROTO_IPV4,
                            _TABLE,
                            _CHAIN,
                            destination_in(IPv4Network(OWN_SERVER)),
                            is_protocol(_PROTOCOLS[end.type]),
                            destination_port(PORT),
                            load_value(_ADDRESS_REGISTER, address_part(IPv4Address(OWN_SERVER))),
                            load_value(_PORT_REGISTER, port_part(end.getsockname()[1])),
                            translate_destination(NFPROTO_IPV4, _ADDRESS_REGISTER, _PORT_REGISTER),
                        )
                        for end in (datagrams, listener)
                    ),
                ]
            )
        finally:
            nftables.close()
        undo.pop_all()
        return datagrams, listener


def _bound(kind: socket.SocketKind, undo: ExitStack) -> socket.socket:
    end = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    undo.callback(end.close)
    end.bind((OWN_SERVER, 0))
    return end
