"""Living beside other firewalls: accept rules for our bridges where a foreign ruleset refuses to forward.

An accept in our table does not overrule a drop in another one. Docker, ufw and others set the forward policy to
drop, which stops even two containers on one bridge (br_netfilter). Where such a chain exists, two rules for each
bridge go to its head, or to DOCKER-USER beside it, which dockerd keeps when it rewrites its own. They carry our
mark, are found again by it, and let nothing in by themselves: our own forward chain still decides.
Rules of iptables-legacy are invisible to nf_tables and left alone.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable, Collection

from naru.kernel.netlink import Message
from naru.kernel.nftables import (
    HOOK_FORWARD,
    NF_ACCEPT,
    NF_DROP,
    NFNLGRP_NFTABLES,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Chain,
    NftablesSocket,
    counter,
    delete_rule,
    event_table,
    from_interface,
    insert_rule,
    is_table_deletion,
    is_unconditional_refusal,
    to_interface,
    verdict,
)
from naru.network.firewall import TABLE

_log = logging.getLogger(__name__)
_USER_CHAIN = "DOCKER-USER"
_MARK = "naru "
_QUIET_S = 0.05  # a restarting firewall sends hundreds of events; look once it pauses


def accept_in_foreign_chains(nftables: NftablesSocket, devices: Collection[str]) -> int:
    """Make foreign forward chains accept `devices` and no others of ours; return how many rules changed."""
    changes: list[Message] = []
    for family in (NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_INET):
        chains = [chain for chain in nftables.chains(family) if chain.table != TABLE]
        forward = [chain for chain in chains if chain.hook == HOOK_FORWARD]
        user = {chain.table: chain for chain in chains if chain.hook is None and chain.name == _USER_CHAIN}
        targets = {user.get(chain.table, chain) for chain in forward if _refuses(nftables, chain)}
        for chain in {*forward, *user.values()}:
            changes += _changes(nftables, chain, devices if chain in targets else ())
    nftables.commit(changes)
    return len(changes)


def _changes(nftables: NftablesSocket, chain: Chain, devices: Collection[str]) -> list[Message]:
    wanted = {
        f"{_MARK}{device} {direction}": match(device)
        for device in devices
        for direction, match in (("in", from_interface), ("out", to_interface))
    }
    messages = []
    for rule in nftables.rules(chain.family, chain.table, chain.name):
        if not rule.comment.startswith(_MARK):
            continue
        if wanted.pop(rule.comment, None) is None:
            messages.append(delete_rule(chain.family, chain.table, chain.name, rule.handle))
    for mark, match in wanted.items():
        expressions = (match, counter(), verdict(NF_ACCEPT))
        messages.append(insert_rule(chain.family, chain.table, chain.name, *expressions, comment=mark))
    return messages


def _refuses(nftables: NftablesSocket, chain: Chain) -> bool:
    if chain.policy == NF_DROP:
        return True
    rules = nftables.rules(chain.family, chain.table, chain.name)
    return bool(rules) and is_unconditional_refusal(rules[-1])


class FirewallWatch:
    """Calls back, from its own thread, after somebody else changed the host's nf_tables or removed ours."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._events = NftablesSocket(groups=1 << (NFNLGRP_NFTABLES - 1))
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="firewall-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; no call back is under way afterwards."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._events.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        is_pending = False
        while True:
            ready = poll.poll(_QUIET_S * 1000 if is_pending else None)
            if any(descriptor == self._stop for descriptor, _mask in ready):
                return
            if ready:
                is_pending = self._drain() or is_pending
                continue
            is_pending = False
            try:
                self._on_change()
            except Exception:
                _log.exception("cannot adapt to a changed firewall")

    def _drain(self) -> bool:
        try:
            events = self._events.events()
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # events were lost: look
                return True
            raise
        return any(is_table_deletion(event) or (event_table(event) or TABLE) != TABLE for event in events)
