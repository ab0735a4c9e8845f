"""What a build says while it works: the classic builder's text as lines of POST /build.

`docker build` without buildx prints `stream` as it is, docker-py and compose read the image ID out of it, so the texts
are part of the API. Engine API, ImageBuild, BuildInfo.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from naru.api.progress import ErrorDetail, ProgressMessage
from naru.build.failure import StepFailed
from naru.oci.digest import ImageID, short

Send = Callable[[ProgressMessage], None]


@dataclass
class BuildProgress:
    """Writes one build's stream. When `quiet`, only the result is sent."""

    send: Send
    quiet: bool = False
    total: int = 0
    current: int = 0

    def text(self, text: str) -> None:
        """Send `text` as build output."""
        if text and not self.quiet:
            self.send(ProgressMessage(stream=text))

    def step(self, text: str) -> None:
        """Announce the next instruction."""
        self.current += 1
        self.text(f"Step {self.current}/{self.total} : {text}\n")

    def status(self, text: str) -> None:
        """Send a line about the step at hand, indented as the classic builder does."""
        self.text(f" ---> {text}\n")

    def warning(self, text: str) -> None:
        self.text(f"[Warning] {text}\n")

    def output(self) -> Callable[[bytes], None]:
        """Return a function that sends a step's output; characters that are cut between two pieces come out whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda data: self.text(decoder.decode(data))

    def done(self, image: ImageID, names: Sequence[str]) -> None:
        """Send the result; `names` are the tags in familiar form."""
        self.send(ProgressMessage(aux={"ID": image}))
        if self.quiet:
            self.send(ProgressMessage(stream=f"{image}\n"))
            return
        self.text(f"Successfully built {short(image)}\n")
        for name in names:
            self.text(f"Successfully tagged {name}\n")


def failure_message(error: Exception) -> ProgressMessage:
    """Return the stream's last line for a build that failed; a RUN's exit code travels with it."""
    code = error.exit_code if isinstance(error, StepFailed) else 0
    return ProgressMessage(error=str(error), error_detail=ErrorDetail(code=code, message=str(error)))
