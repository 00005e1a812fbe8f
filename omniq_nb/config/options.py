"""Every option there is, once: the settings of the library, and the parameters of each backend.

Validation, environment variables, the builder, redaction, the tables in the documentation and
the widget panel are all derived from these Structs.

Not here: where values come from (`omniq_nb.config.sources`) and which one wins
(`omniq_nb.config.model`).
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.inspect import Metadata, type_info

from omniq_nb.config.urls import masked
from omniq_nb.errors import ConfigError

LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "DISABLED"]
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Word: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]+$")]
SECRET = Meta(extra={"secret": True})


@cache
def fields(options: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of an options Struct by name."""
    return {field.name: field for field in msgspec.structs.fields(options)}


def description(field: msgspec.structs.FieldInfo) -> str:
    """What a field is about, in words."""
    texts = ((info.extra_json_schema or {}).get("description") for info in _metadata(field))
    return next((str(text) for text in texts if text), "")


def is_secret(field: msgspec.structs.FieldInfo) -> bool:
    """Whether a field's value must never be shown."""
    return any((info.extra or {}).get("secret") for info in _metadata(field))


def _metadata(field: msgspec.structs.FieldInfo) -> Iterator[Metadata]:
    info = type_info(field.type)
    while isinstance(info, Metadata):
        yield info
        info = info.type


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options with values. They are shown without their secrets."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        known = fields(type(self)).items()
        return [(name, masked(getattr(self, name), is_secret(field))) for name, field in known]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"


class Settings(Options, frozen=True, kw_only=True):
    """Settings of the library as a whole: ``OMNIQ_<NAME>`` in the environment."""

    project_name: Annotated[
        Text, Meta(description="Names the project's signing key and its default places.")
    ] = "omniq"
    base_dir: Annotated[Text, Meta(description="Folder of backends whose place is not given.")] = (
        ".omniq"
    )
    fsspec_uri: Annotated[
        str | None,
        Meta(
            description="Default place of file, s3, gcs or azure backends, whichever its scheme "
            "means: `file:///data`, `s3://bucket/prefix`."
        ),
    ] = None
    log_level: Annotated[LogLevel, Meta(description="Level of the logger `omniq_nb`.")] = "WARNING"
    disable_logging: Annotated[bool, Meta(description="Silence the library's loggers.")] = False
    component_log_levels: Annotated[
        Mapping[str, LogLevel],
        Meta(
            description="Levels of single loggers below `omniq_nb`, by name: "
            '`{"worker": "DEBUG"}`; JSON in the environment.'
        ),
    ] = {}
    default_queue: Annotated[Text, Meta(description="Queue of tasks that name none.")] = "default"
    default_worker: Annotated[
        Literal["thread", "async", "process", "process-per-task"],
        Meta(description="Kind of worker that `oq.workers.start()` starts."),
    ] = "thread"
    max_workers: Annotated[
        Count, Meta(description="The most tasks that one worker may run at the same time.")
    ] = 64
    thread_workers: Annotated[
        Count, Meta(description="Tasks at the same time for thread and async workers.")
    ] = 4
    process_workers: Annotated[
        Count, Meta(description="Tasks at the same time for process workers.")
    ] = max(1, os.cpu_count() or 1)
    task_timeout: Annotated[
        Seconds | None, Meta(description="Seconds that an attempt may take.")
    ] = None
    task_ttl: Annotated[
        Seconds | None, Meta(description="Seconds after which an unstarted task expires.")
    ] = None
    result_ttl: Annotated[
        Seconds | None, Meta(description="Seconds for which a result is kept.")
    ] = None
    retry_attempts: Annotated[
        Annotated[int, Meta(ge=0)], Meta(description="Retries after a failed first attempt.")
    ] = 0
    retry_delay: Annotated[
        Annotated[float, Meta(ge=0)],
        Meta(description="Seconds before the first retry; each further one waits twice as long."),
    ] = 1.0
    strict: Annotated[
        bool, Meta(description="Refuse pickled payloads and functions that are not allowed.")
    ] = False
    allowed_functions: Annotated[
        tuple[str, ...],
        Meta(
            description="Functions that strict mode lets run: `module:name`, `module:*` or "
            "`package.*`; comma-separated in the environment."
        ),
    ] = ()


SslMode: TypeAlias = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
Format: TypeAlias = Literal["msgpack", "json", "pickle"]


class MemoryOptions(Options, frozen=True, kw_only=True):
    """Everything in this process, gone with it."""


class SqliteOptions(Options, frozen=True, kw_only=True):
    """One database file; ``:memory:`` for none."""

    timeout: Annotated[
        Seconds, Meta(description="Seconds to wait for another process's transaction.")
    ] = 30.0
    journal_mode: Annotated[
        Literal["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"],
        Meta(description="SQLite's journal mode."),
    ] = "WAL"
    synchronous: Annotated[
        Literal["OFF", "NORMAL", "FULL", "EXTRA"],
        Meta(
            description="SQLite's durability: with NORMAL a power cut may undo the last moments, "
            "a crash of a process never does."
        ),
    ] = "NORMAL"
    cache_size: Annotated[
        int, Meta(description="SQLite's page cache: pages, or KiB if negative.")
    ] = -64000


class FileOptions(Options, frozen=True, kw_only=True):
    """One local folder."""

    base_dir: Annotated[Text | None, Meta(description="The folder, where no URL is given.")] = None
    serialization_format: Annotated[
        Format, Meta(description="How plain values are packed, where that is exact.")
    ] = "msgpack"
    fsync: Annotated[
        bool, Meta(description="Survive power cuts; without it, crashes of processes only.")
    ] = True
    fsspec_uri: Annotated[str | None, Meta(description="The folder as a `file://` URI.")] = None
    storage_options: Annotated[
        Mapping[str, object], Meta(description="Must be empty for local folders.")
    ] = {}

    def __post_init__(self) -> None:
        if self.storage_options:
            allowed = "nothing for local folders; for a bucket, backend_type s3, gcs or azure"
            raise ConfigError("storage_options", masked(self.storage_options), allowed)


class RedisOptions(Options, frozen=True, kw_only=True):
    """A Redis server."""

    host: Annotated[Text, Meta(description="Server; or the path of its socket.")] = "localhost"
    port: Annotated[Port, Meta(description="Port.")] = 6379
    database: Annotated[Annotated[int, Meta(ge=0)], Meta(description="Database number.")] = 0
    username: Annotated[str | None, Meta(description="User.")] = None
    password: Annotated[str | None, Meta(description="Password."), SECRET] = None
    ssl: Annotated[bool, Meta(description="TLS; also by `rediss://`.")] = False
    ssl_ca_certs: Annotated[
        str | None, Meta(description="Path of the certificates that a server's must come from.")
    ] = None
    ssl_certfile: Annotated[str | None, Meta(description="Path of the client's certificate.")] = (
        None
    )
    ssl_keyfile: Annotated[str | None, Meta(description="Path of the client's private key.")] = None
    prefix: Annotated[Text, Meta(description="Of all keys.")] = "omniq"
    max_connections: Annotated[Count, Meta(description="Size of the connection pool.")] = 10
    timeout: Annotated[
        Seconds, Meta(description="Seconds for one command, and for a server to come back.")
    ] = 30.0


class PostgresOptions(Options, frozen=True, kw_only=True):
    """A PostgreSQL database."""

    host: Annotated[
        Text | None,
        Meta(
            description="Server; several as `a:5432,b:5432`, of which one that takes writes is "
            "used. Unless given: that of the service, PGHOST, or localhost."
        ),
    ] = None
    port: Annotated[Port | None, Meta(description="Port; else the service's, PGPORT, or 5432.")] = (
        None
    )
    database: Annotated[
        Text | None, Meta(description="Database; else the service's, PGDATABASE, or `omniq`.")
    ] = None
    username: Annotated[
        str | None, Meta(description="User; else the service's, PGUSER, or who runs this.")
    ] = None
    password: Annotated[
        str | None, Meta(description="Password; else PGPASSWORD, or ~/.pgpass."), SECRET
    ] = None
    service: Annotated[
        Text | None, Meta(description="Name of a service in ~/.pg_service.conf.")
    ] = None
    schema: Annotated[Text, Meta(description="Schema of the tables.")] = "omniq"
    sslmode: Annotated[SslMode | None, Meta(description="As in libpq.")] = None
    sslrootcert: Annotated[
        str | None, Meta(description="Path of the certificates that a server's must come from.")
    ] = None
    sslcert: Annotated[str | None, Meta(description="Path of the client's certificate.")] = None
    sslkey: Annotated[str | None, Meta(description="Path of the client's private key.")] = None
    min_connections: Annotated[Count, Meta(description="Connections kept open.")] = 1
    max_connections: Annotated[Count, Meta(description="Size of the connection pool.")] = 10
    timeout: Annotated[
        Seconds,
        Meta(description="Seconds for a connection or a statement, and for a server to come back."),
    ] = 30.0

    def __post_init__(self) -> None:
        if self.min_connections > self.max_connections:
            allowed = f"at most max_connections, which is {self.max_connections}"
            raise ConfigError("min_connections", self.min_connections, allowed)


class NatsOptions(Options, frozen=True, kw_only=True):
    """NATS servers with JetStream."""

    servers: Annotated[
        tuple[str, ...], Meta(description="Servers; or comma-separated in the URL.")
    ] = ("nats://localhost:4222",)
    stream: Annotated[
        Word, Meta(description="Prefix of all streams: letters, digits, - and _.")
    ] = "omniq"
    username: Annotated[str | None, Meta(description="User.")] = None
    password: Annotated[str | None, Meta(description="Password."), SECRET] = None
    token: Annotated[str | None, Meta(description="Token."), SECRET] = None
    creds_file: Annotated[str | None, Meta(description="Path of a credentials file.")] = None
    timeout: Annotated[Seconds, Meta(description="Seconds for one request.")] = 30.0


class S3Options(Options, frozen=True, kw_only=True):
    """A bucket of S3, or of anything that speaks its protocol."""

    bucket: Annotated[Text | None, Meta(description="Bucket, where no URL is given.")] = None
    prefix: Annotated[str, Meta(description="Of all objects.")] = ""
    endpoint_url: Annotated[str | None, Meta(description="Another server than Amazon's.")] = None
    region: Annotated[str | None, Meta(description="Region.")] = None
    profile: Annotated[str | None, Meta(description="Profile of the credentials chain.")] = None
    key: Annotated[str | None, Meta(description="Access key id."), SECRET] = None
    secret: Annotated[str | None, Meta(description="Secret access key."), SECRET] = None
    token: Annotated[str | None, Meta(description="Session token."), SECRET] = None
    serialization_format: Annotated[
        Format, Meta(description="How plain values are packed, where that is exact.")
    ] = "msgpack"
    storage_options: Annotated[Mapping[str, object], Meta(description="More, for `s3fs`.")] = {}


class GcsOptions(Options, frozen=True, kw_only=True):
    """A bucket of Google Cloud Storage."""

    bucket: Annotated[Text | None, Meta(description="Bucket, where no URL is given.")] = None
    prefix: Annotated[str, Meta(description="Of all objects.")] = ""
    endpoint_url: Annotated[str | None, Meta(description="Another server than Google's.")] = None
    project: Annotated[str | None, Meta(description="Project.")] = None
    token: Annotated[
        str | None, Meta(description="Path of a key file, or `google_default`..."), SECRET
    ] = None
    serialization_format: Annotated[
        Format, Meta(description="How plain values are packed, where that is exact.")
    ] = "msgpack"
    storage_options: Annotated[Mapping[str, object], Meta(description="More, for `gcsfs`.")] = {}


class AzureOptions(Options, frozen=True, kw_only=True):
    """A container of Azure Blob Storage."""

    container: Annotated[Text | None, Meta(description="Container, where no URL is given.")] = None
    prefix: Annotated[str, Meta(description="Of all blobs.")] = ""
    account_name: Annotated[str | None, Meta(description="Storage account.")] = None
    account_key: Annotated[str | None, Meta(description="Its key."), SECRET] = None
    connection_string: Annotated[
        str | None, Meta(description="Instead of account and key."), SECRET
    ] = None
    sas_token: Annotated[str | None, Meta(description="Shared access signature."), SECRET] = None
    serialization_format: Annotated[
        Format, Meta(description="How plain values are packed, where that is exact.")
    ] = "msgpack"
    storage_options: Annotated[Mapping[str, object], Meta(description="More, for `adlfs`.")] = {}


BackendOptions: TypeAlias = (
    MemoryOptions
    | SqliteOptions
    | FileOptions
    | RedisOptions
    | PostgresOptions
    | NatsOptions
    | S3Options
    | GcsOptions
    | AzureOptions
)

BACKENDS: dict[str, type[BackendOptions]] = {
    "memory": MemoryOptions,
    "sqlite": SqliteOptions,
    "file": FileOptions,
    "redis": RedisOptions,
    "postgres": PostgresOptions,
    "nats": NatsOptions,
    "s3": S3Options,
    "gcs": GcsOptions,
    "azure": AzureOptions,
}
"""The backends by `backend_type`, in the order in which they are offered."""
