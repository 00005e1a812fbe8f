"""What is too large to be stored with each task that needs it: bytes under a name made of them.

A call whose function or arguments hold much data names *bundles* in their place. The name of a
bundle is made of its content and of the project's key, so equal content has one name, and nobody
without the key can put other content under it.

Not here: where bundles are kept (`omniq_nb.storage.base.TaskQueue`), and who fetches them
(`omniq_nb.core.bundles`).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from omniq_nb.errors import PayloadError

T = TypeVar("T")

BIG = 1_000_000
"""Bytes above which something is worth a bundle of its own."""

Fetch = Callable[[str], bytes]
"""Gives the signed payload of a bundle, by name; it may take its time."""

Share = Callable[[bytes | memoryview], str]
"""Makes a bundle of bytes, and gives its name."""


class Bundles:
    """The bundles of one submission.

    Attributes
    ----------
    payloads : dict
        Signed, by name. All of them must be in the queue before the tasks that name them.
    constants : dict
        By the identity of a value that many calls have: the value itself, which must live as long
        as its identity counts, and the bundle's name; None if it is too small for one.
    """

    def __init__(self) -> None:
        self.payloads: dict[str, bytes] = {}
        self.constants: dict[int, tuple[object, str | None]] = {}


def no_bundles(name: str) -> bytes:
    """Fetch for those who have none."""
    raise PayloadError(f"the bundle {name} that a call refers to is not at hand")


class Shelf(Generic[T]):
    """Keeps what was used last, up to a number of bytes; the last one always. Thread-safe.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> T | None:
        """What was put under that key. None: nothing, or it had to make way."""
        with self._lock:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key][0]

    def put(self, key: Hashable, item: T, size: int) -> None:
        """Keep something of that many bytes."""
        with self._lock:
            if key in self._items:
                self._size -= self._items.pop(key)[1]
            self._items[key] = item, size
            self._size += size
            while self._size > self._limit and len(self._items) > 1:
                self._size -= self._items.popitem(last=False)[1][1]
