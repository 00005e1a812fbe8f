"""What differs between the three clouds: one table, `CLOUDS`, and the errors of their drivers.

Not here: when a request is repeated (`connection`).
"""

import asyncio
import errno
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from omniq_nb.config.options import AzureOptions, GcsOptions, S3Options, fields, is_secret
from omniq_nb.config.urls import is_secret_name
from omniq_nb.errors import StoreUnavailable

CONNECTIONS = 64
"""HTTP connections that one client may hold."""


class Found(NamedTuple):
    """One line of a listing.

    Attributes
    ----------
    name : str
        Without the folder in which it lies.
    modified : float
        Seconds since 1970 by the cloud's clock; 0 for a folder.
    """

    name: str
    modified: float


class Trouble(Enum):
    """What an error of a driver comes to."""

    MISSING = auto()
    """There is no such object, or no such bucket."""
    TAKEN = auto()
    """It exists already, or a condition was not met."""
    PASSING = auto()
    """It may work if tried again; it may even have worked."""
    REFUSED = auto()
    """It will not work."""


class Cloud(NamedTuple):
    """What differs.

    Attributes
    ----------
    title, word, scheme : str
        What people call it, and call a bucket in it; how URLs begin.
    driver : str
        The filesystem, as ``"module:Class"``.
    extra : str
        What installs it.
    place : callable
        From options to the names of bucket and prefix.
    arguments : callable
        From options to the filesystem's arguments, without the user's own.
    listing : callable
        Lists one folder, by a request for every thousand objects or so.
    modified : tuple of str
        Under which keys a listing may say when an object was written.
    delete : callable
        Deletes objects.
    close : callable
        Closes what the filesystem holds open.
    """

    title: str
    word: str
    scheme: str
    driver: str
    extra: str
    place: Callable[[Any], tuple[str | None, str]]
    arguments: Callable[[Any], dict[str, Any]]
    listing: Callable[[Any, str], Awaitable[Sequence[Mapping[str, Any]]]]
    modified: tuple[str, ...]
    delete: Callable[[Any, list[str]], Awaitable[None]]
    close: Callable[[Any], Awaitable[None]]

    def root(self, options: Any) -> str:
        """Bucket and prefix, as the driver wants paths to begin."""
        bucket, prefix = self.place(options)
        return "/".join(part for part in (bucket, prefix.strip("/")) if part)

    def filesystem(self, options: Any) -> Any:
        """Make a filesystem for the running loop. Nothing is connected yet."""
        module, _, name = self.driver.partition(":")
        try:
            make = getattr(import_module(module), name)
        except ImportError as error:
            raise StoreUnavailable(
                f"{self.title} needs {module}: pip install 'omniq_nb[{self.extra}]' ({error})."
            ) from error
        given = dict(options.storage_options)
        arguments = self.arguments(options)
        for key, value in arguments.items():
            if isinstance(value, dict) and isinstance(given.get(key), Mapping):
                given[key] = value | dict(given[key])
        try:
            fs = make(
                **(arguments | given),
                asynchronous=True,
                loop=asyncio.get_running_loop(),
                skip_instance_cache=True,
                use_listings_cache=False,
            )
            fs.retries = 1  # we repeat requests ourselves, knowing which may be repeated
            for reference in weakref.getweakrefs(fs):
                # We close it, on its own loop; drivers would try at exit, without one.
                if isinstance(reference.__callback__, weakref.finalize):
                    reference.__callback__.detach()
            return fs
        except Exception as error:
            # Drivers say by any kind of error that a profile or a key file is not there.
            raise StoreUnavailable(
                f"{self.title} cannot be used so: {self.words(error, options)}."
            ) from error

    async def list(self, fs: Any, path: str) -> list[Found]:
        """List one folder."""
        found = []
        for line in await self.listing(fs, path):
            name = str(line["name"]).rstrip("/").rpartition("/")[2]
            at = next((line[key] for key in self.modified if line.get(key)), None)
            if name and str(line["name"]).rstrip("/") != path:
                found.append(Found(name, _seconds(at)))
        return found

    def trouble(self, error: Exception) -> Trouble:
        """Tell what to do about an error of the driver's."""
        status = _status(error)
        if isinstance(error, FileNotFoundError) or status == 404:
            return Trouble.MISSING
        if isinstance(error, FileExistsError) or status == 412:
            return Trouble.TAKEN
        if isinstance(error, OSError) and error.errno == errno.EINVAL and status in (None, 409):
            return Trouble.TAKEN
        names = {one.__name__ for one in type(error).__mro__}
        if isinstance(error, PermissionError) or names & _REFUSED:
            return Trouble.REFUSED
        if status is not None:
            passing = status >= 500 or status in (408, 409, 429)
            return Trouble.PASSING if passing else Trouble.REFUSED
        packages = {one.__module__.partition(".")[0] for one in type(error).__mro__}
        if isinstance(error, OSError | TimeoutError) or packages & _DRIVERS:
            return Trouble.PASSING
        return Trouble.REFUSED

    def words(self, error: Exception | None, options: Any) -> str:
        """Put an error of the driver's in words, without secrets: drivers quote what they got."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        kind: type[msgspec.Struct] = type(options)
        secrets = [
            getattr(options, name) for name, field in fields(kind).items() if is_secret(field)
        ]
        secrets += [value for name, value in _flat(options.storage_options) if is_secret_name(name)]
        for secret in secrets:
            if secret:
                text = text.replace(str(secret), "***")
        return text.rstrip(".")


_DRIVERS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests"}

_REFUSED = {
    "ClientAuthenticationError",
    "DefaultCredentialsError",
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshError",
    "TokenRetrievalError",
}
"""Errors of the drivers that mean: whoever asks is not known. By name: none is imported here."""


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an answer that a driver turned into an error."""
    for _ in range(3):
        if error is None:
            return None
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            said = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            said = getattr(error, "status_code", None) or getattr(error, "code", None)
        if isinstance(said, int | str) and str(said).isdecimal():
            return int(said)
        error = error.__cause__
    return None


def _flat(options: Mapping[str, object]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in options.items():
        pairs += _flat(value) if isinstance(value, Mapping) else [(str(name), value)]
    return pairs


def _seconds(at: object) -> float:
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at.timestamp() if isinstance(at, datetime) else 0.0


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, {})}


# ---------------------------------------------------------------- S3


@cache
def _s3_session() -> Any:
    """What knows Amazon's services: reading that anew takes a third of a second."""
    return import_module("aiobotocore.session").AioSession()


def _s3_arguments(options: S3Options) -> dict[str, Any]:
    # Credentials that are looked for belong to one event loop, so then nothing is shared.
    shared = options.key and options.secret and not options.profile
    return _given(
        session=_s3_session() if shared else None,
        endpoint_url=options.endpoint_url,
        key=options.key,
        secret=options.secret,
        token=options.token,
        profile=options.profile,
        client_kwargs=_given(region_name=options.region),
        config_kwargs={
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": CONNECTIONS,
        },
    )


async def _s3_listing(fs: Any, path: str) -> Sequence[Mapping[str, Any]]:
    lines: Sequence[Mapping[str, Any]] = await fs._lsdir(path, refresh=True)
    return lines


async def _s3_delete(fs: Any, paths: list[str]) -> None:
    for start in range(0, len(paths), 1000):
        await fs._bulk_delete(paths[start : start + 1000])


async def _s3_close(fs: Any) -> None:
    client = fs._s3
    if client is not None:
        await client.close()


# ---------------------------------------------------------------- Google


def _gcs_arguments(options: GcsOptions) -> dict[str, Any]:
    return _given(
        endpoint_url=options.endpoint_url,
        project=options.project,
        token=options.token,
    )


async def _gcs_listing(fs: Any, path: str) -> Sequence[Mapping[str, Any]]:
    objects, folders = await fs._do_list_objects(path)
    return [*objects, *({"name": name} for name in folders)]


async def _one_by_one(fs: Any, paths: list[str]) -> None:
    room = asyncio.Semaphore(CONNECTIONS // 2)

    async def delete(path: str) -> None:
        async with room:
            try:
                await fs._rm_file(path)
            except FileNotFoundError:
                return

    await asyncio.gather(*(delete(path) for path in paths))


async def _gcs_close(fs: Any) -> None:
    if fs._session is not None:
        await fs._session.close()


# ---------------------------------------------------------------- Azure


def _azure_arguments(options: AzureOptions) -> dict[str, Any]:
    return _given(
        account_name=options.account_name,
        account_key=options.account_key,
        connection_string=options.connection_string,
        sas_token=options.sas_token,
    )


async def _azure_listing(fs: Any, path: str) -> Sequence[Mapping[str, Any]]:
    # Not by adlfs, which also lists every folder that it finds there.
    container, _, folder = path.partition("/")
    client = fs.service_client.get_container_client(container)
    return [line async for line in client.walk_blobs(name_starts_with=f"{folder}/")]


async def _azure_close(fs: Any) -> None:
    await fs.service_client.close()
    credential = fs.credential
    if hasattr(credential, "close"):
        await credential.close()


CLOUDS: dict[str, Cloud] = {
    "s3": Cloud(
        title="S3",
        word="bucket",
        scheme="s3",
        driver="s3fs:S3FileSystem",
        extra="s3",
        place=lambda options: (options.bucket, options.prefix),
        arguments=_s3_arguments,
        listing=_s3_listing,
        modified=("LastModified",),
        delete=_s3_delete,
        close=_s3_close,
    ),
    "gcs": Cloud(
        title="Google Cloud Storage",
        word="bucket",
        scheme="gs",
        driver="gcsfs.core:GCSFileSystem",
        extra="gcs",
        place=lambda options: (options.bucket, options.prefix),
        arguments=_gcs_arguments,
        listing=_gcs_listing,
        modified=("updated", "mtime"),
        delete=_one_by_one,
        close=_gcs_close,
    ),
    "azure": Cloud(
        title="Azure Blob Storage",
        word="container",
        scheme="az",
        driver="adlfs:AzureBlobFileSystem",
        extra="azure",
        place=lambda options: (options.container, options.prefix),
        arguments=_azure_arguments,
        listing=_azure_listing,
        modified=("last_modified",),
        delete=_one_by_one,
        close=_azure_close,
    ),
}
"""The clouds by `backend_type`."""
