"""``OmniQ(backend=SQLiteBackend())``: see `omniq_nb.config` for everything else."""

from omniq_nb.config import StorageBackendConfig


def SQLiteBackend(url: str | None = None, **options: object) -> StorageBackendConfig:
    """SQLite for all four components.

    Parameters
    ----------
    url : str, optional
        The file, or a URL ``sqlite:///...``; unless given, the default place.
    **options
        Any field of `omniq_nb.config.options.SqliteOptions`.
    """
    return StorageBackendConfig("sqlite", url, options or None)
