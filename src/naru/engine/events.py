"""The event stream: what happened to containers, images, networks and volumes, in order, filterable.

Events are kept in a bounded ring, so that `since` can look back a little; they are not records and do not survive a
restart of the daemon. Engine API, SystemEvents.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from naru.api.event import EventActor, EventMessage

Callback = Callable[[EventMessage], None]
Filters = Mapping[str, Sequence[str]]

_KEPT = 1024  # moby keeps 256; a compose project of 40 services already makes more


class Subscription:
    """One listener; `close` may be called from any thread, more than once."""

    def __init__(self, bus: EventBus, callback: Callback, filters: Filters, until_ns: int) -> None:
        self._bus = bus
        self._callback = callback
        self._filters = filters
        self._until_ns = until_ns

    def offer(self, event: EventMessage) -> None:
        """Hand `event` to the listener if its filters let it through."""
        if self._until_ns and event.time_nano > self._until_ns:
            return
        if _matches(event, self._filters):
            self._callback(event)

    def close(self) -> None:
        """Stop listening."""
        self._bus.forget(self)


class EventBus:
    """Publishes each event to every subscription, in one order for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[EventMessage] = deque(maxlen=_KEPT)
        self._subscriptions: list[Subscription] = []

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        """Tell every listener that `action` happened to the `kind` object `actor_id`."""
        with self._lock:
            stamp = time.time_ns()
            event = EventMessage(
                type=kind,
                action=action,
                actor=EventActor(id=actor_id, attributes=dict(attributes)),
                scope="local",
                time=stamp // 1_000_000_000,
                time_nano=stamp,
            )
            self._recent.append(event)
            for subscription in list(self._subscriptions):
                subscription.offer(event)

    def subscribe(self, callback: Callback, *, filters: Filters, since_ns: int = 0, until_ns: int = 0) -> Subscription:
        """Call `callback` for each kept event after `since_ns` (0: none of them) and for every new one."""
        subscription = Subscription(self, callback, filters, until_ns)
        with self._lock:
            if since_ns:
                for event in self._recent:
                    if event.time_nano >= since_ns:
                        subscription.offer(event)
            self._subscriptions.append(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Remove `subscription`; unknown ones are ignored."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)


def _matches(event: EventMessage, filters: Filters) -> bool:
    return all(any(_matches_one(event, key, value) for value in values) for key, values in filters.items() if values)


def _matches_one(event: EventMessage, key: str, value: str) -> bool:
    attributes = event.actor.attributes
    match key:
        case "type":
            return event.type == value
        case "event":
            return event.action == value or event.action.startswith(value + ":")
        case "label":
            name, separator, wanted = value.partition("=")
            return name in attributes and (not separator or attributes[name] == wanted)
        case "container" | "network" | "volume" | "daemon" | "plugin" | "node" | "service" | "secret" | "config":
            return event.type == key and _names(event, value)
        case "image":
            name = attributes.get("image", "") if event.type == "container" else attributes.get("name", "")
            return name == value or name.split(":")[0] == value or event.actor.id == value
        case "scope":
            return value == "local"
        case _:
            return True  # Docker does not look at filters it does not know


def _names(event: EventMessage, value: str) -> bool:
    return event.actor.id.startswith(value) or event.actor.attributes.get("name") == value.removeprefix("/")
