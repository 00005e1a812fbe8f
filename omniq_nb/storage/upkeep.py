"""What stores that consist of many pieces offer for their upkeep: compacting, and a deep check.

Such are logs with checkpoints, and segments with manifests. Databases see to it themselves.

Not here: how it is done (`omniq_nb.storage.journal`, `omniq_nb.storage.objects`).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be.

    Attributes
    ----------
    where : str
        The piece, or the pieces.
    what : str
        What is wrong with it, and what that means.
    repaired : bool
        It is all right now.
    harm : bool
        Something is lost. Otherwise it only takes room.
    """

    where: str
    what: str
    repaired: bool = False
    harm: bool = False


@runtime_checkable
class Kept(Protocol):
    """A store that needs upkeep."""

    async def compact(self) -> None:
        """Make of many small pieces a few large ones, now."""

    async def inspect(self, repair: bool) -> Sequence[Finding]:
        """Look at every piece. It may be in use meanwhile.

        Parameters
        ----------
        repair : bool
            Delete what nobody can need any more. Nothing else is ever changed.
        """
