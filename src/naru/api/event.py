"""What happened, for `docker events`. Engine API, EventMessage."""

from __future__ import annotations

from naru.api.wire import Wire, always, made, named


class EventActor(Wire):
    id: str = always("", name="ID")
    attributes: dict[str, str] = always({})


class EventMessage(Wire):
    """`type` is container, image, network, volume, daemon or builder; `time` in seconds, `time_nano` in nanoseconds."""

    type: str = always("")
    action: str = always("")
    actor: EventActor = made(EventActor)
    scope: str = named("", "scope")
    time: int = named(0, "time")
    time_nano: int = named(0, "timeNano")
