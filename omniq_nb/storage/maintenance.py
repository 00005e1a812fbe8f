"""Compacting and deep checks of a whole configuration, for the command line.

Not here: what each store does (`omniq_nb.storage.upkeep`), and trying one out (`probe`).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from omniq_nb.config.model import COMPONENTS, OmniQConfig
from omniq_nb.storage.base import Store
from omniq_nb.storage.factory import StorageBackendFactory
from omniq_nb.storage.upkeep import Finding, Kept


async def compact(config: OmniQConfig) -> list[str]:
    """Compact what needs it, and give the names of the components that were."""
    done = []
    async with _opened(config) as stores:
        for component, store in stores.items():
            if isinstance(store, Kept):
                await store.compact()
                done.append(component)
    return done


async def inspect(config: OmniQConfig, repair: bool) -> dict[str, Sequence[Finding]]:
    """Check every piece of every store that has pieces.

    Parameters
    ----------
    config : OmniQConfig
        Where they are.
    repair : bool
        Delete what nobody can need any more.

    Returns
    -------
    dict of str to sequence of Finding
        By component; a database's is not there.
    """
    async with _opened(config) as stores:
        return {
            component: await store.inspect(repair)
            for component, store in stores.items()
            if isinstance(store, Kept)
        }


@asynccontextmanager
async def _opened(config: OmniQConfig) -> AsyncIterator[dict[str, Store]]:
    made = StorageBackendFactory.create_stores(config)
    stores: dict[str, Store] = {component: getattr(made, component) for component in COMPONENTS}
    try:
        for store in stores.values():
            await store.open()
        yield stores
    finally:
        for store in stores.values():
            await store.close()
