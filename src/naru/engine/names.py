"""Names for containers that were not given one: an adjective and a Korean river, island or ferry landing."""

from __future__ import annotations

import random
import re
from collections.abc import Container

from naru.errors import InvalidArgument

_ADJECTIVES = (
    "able agile amber ample apt awake azure balmy bold brave brief bright brisk calm candid cheery civil clean clear "
    "clever cosy crisp curious daring deft eager early easy fair fancy fast fine firm fleet fond free fresh frosty "
    "gentle glad golden grand happy hardy hazy honest humble ideal jolly keen kind lively loyal lucid lucky lunar "
    "mellow merry mild misty modest neat nimble noble novel patient plain pleasant polite prime proud quick quiet "
    "rapid ready rosy royal serene sharp shiny silent silver simple sincere sleek smart smooth snowy solar solid "
    "steady still sunny swift tender tidy tranquil trusty upbeat vivid warm wise witty young zesty"
).split()
_PLACES = (
    "amsa amrok anyang baengma boseong bukhan cheongcheon chogang dadae daecheong daedong danyang dodam dokdo dongang "
    "duman eulsuk gaehwa gagye ganghwa gangneung gapyeong garam gariwang geoje geum gungnam gwangnaru gyeongpo haenam "
    "hallim han hantan heuksan hongcheon hwacheon imjin inje jamsil jangheung jeju jinan jindo jungnang jwara kumho "
    "mapo mara mokpo namhan nakdong noryang odong oncheon paldang pyeongchang samnak sapgyo seomjin seonyu seoraksan "
    "seosan sohyeol songpa soyang taehwa tamjin tangeum ttukseom tumen udo uiam ulleung wando yanghwa yeoju yeongsan "
    "yeongwol yeouinaru"
).split()

_VALID = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


def generate(taken: Container[str]) -> str:
    """Return a name that is not in `taken`."""
    for attempt in range(100):
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_PLACES)}"
        if attempt > 10:
            name += str(random.randrange(10_000))
        if name not in taken:
            return name
    raise AssertionError("a hundred random names were all taken")


def check(name: str) -> str:
    """Return `name` without its leading slash. InvalidArgument: not a container name."""
    if not _VALID.match(name):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        )
    return name.removeprefix("/")
