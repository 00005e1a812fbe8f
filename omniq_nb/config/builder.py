"""The fluent builder: one namespace for each component, one method for each backend.

The signatures repeat the fields of `omniq_nb.config.options`, so that an editor can complete
and explain them; a test holds the two equal.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from msgspec import UNSET, UnsetType

from omniq_nb.config.backend import StorageBackendConfig, plain
from omniq_nb.config.model import COMPONENTS, OmniQConfig
from omniq_nb.config.sources import nearest, within
from omniq_nb.errors import ConfigError

B = TypeVar("B")
T = TypeVar("T")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not UNSET}


class BackendChoice(Generic[B]):
    """The backends that a component may have. Every method gives back the builder.

    Parameters
    ----------
    name : str
        Of the component, for errors.
    chosen : callable
        Takes note of the choice, and gives the builder.
    """

    def __init__(self, name: str, chosen: Callable[[StorageBackendConfig | str], B]) -> None:
        self._name = name
        self._chosen = chosen

    def like(self, component: str) -> B:
        """The same backend as another component has when the configuration is built.

        Parameters
        ----------
        component : str
            ``task_queue``, ``result_storage``, ``event_storage`` or ``schedule_storage``.
        """
        if component not in COMPONENTS:
            close = nearest(component, COMPONENTS)
            raise ConfigError("like", component, ", ".join(COMPONENTS), close)
        return self._chosen(component)

    def other(self, backend_type: str, url: str | None = None, **options: object) -> B:
        """A backend that another package adds by the entry point ``omniq_nb.backends``."""
        return self._choose(backend_type, url, **options)

    def memory(self, url: str | None = None) -> B:
        """Everything in this process, gone with it.

        Parameters
        ----------
        url : str, optional
            ``memory://name`` keeps components apart that have different names.
        """
        return self._choose("memory", url)

    def sqlite(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float | UnsetType = UNSET,
        journal_mode: str | UnsetType = UNSET,
        synchronous: str | UnsetType = UNSET,
        cache_size: int | UnsetType = UNSET,
    ) -> B:
        """One database file; ``:memory:`` for none.

        Parameters
        ----------
        path : str, optional
            The file; or a URL ``sqlite:///...``; ``:memory:`` for none. Unless given, the default
            place under the base directory.
        timeout : float, default 30.0
            Seconds to wait for another process's transaction.
        journal_mode : str, default 'WAL'
            SQLite's journal mode.
        synchronous : str, default 'NORMAL'
            SQLite's durability: with NORMAL a power cut may undo the last moments, a crash of a
            process never does.
        cache_size : int, default -64000
            SQLite's page cache: pages, or KiB if negative.
        """
        return self._choose(
            "sqlite",
            path,
            timeout=timeout,
            journal_mode=journal_mode,
            synchronous=synchronous,
            cache_size=cache_size,
        )

    def file(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        base_dir: str | None | UnsetType = UNSET,
        serialization_format: str | UnsetType = UNSET,
        fsync: bool | UnsetType = UNSET,
        fsspec_uri: str | None | UnsetType = UNSET,
        storage_options: Mapping[str, object] | UnsetType = UNSET,
    ) -> B:
        """One local folder.

        Parameters
        ----------
        path : str, optional
            The folder; or a URL ``file:///...``. Unless given, the default place under the base
            directory.
        base_dir : str
            The folder, where no URL is given.
        serialization_format : str, default 'msgpack'
            How plain values are packed, where that is exact.
        fsync : bool, default True
            Survive power cuts; without it, crashes of processes only.
        fsspec_uri : str
            The folder as a `file://` URI.
        storage_options : Mapping[str, object]
            Must be empty for local folders.
        """
        return self._choose(
            "file",
            path,
            base_dir=base_dir,
            serialization_format=serialization_format,
            fsync=fsync,
            fsspec_uri=fsspec_uri,
            storage_options=storage_options,
        )

    def redis(
        self,
        url: str | None = None,
        *,
        host: str | UnsetType = UNSET,
        port: int | UnsetType = UNSET,
        database: int | UnsetType = UNSET,
        username: str | None | UnsetType = UNSET,
        password: str | None | UnsetType = UNSET,
        ssl: bool | UnsetType = UNSET,
        ssl_ca_certs: str | None | UnsetType = UNSET,
        ssl_certfile: str | None | UnsetType = UNSET,
        ssl_keyfile: str | None | UnsetType = UNSET,
        prefix: str | UnsetType = UNSET,
        max_connections: int | UnsetType = UNSET,
        timeout: float | UnsetType = UNSET,
    ) -> B:
        """A Redis server.

        Parameters
        ----------
        url : str, optional
            ``redis://user:password@host:6379/0`` or ``rediss://``.
        host : str, default 'localhost'
            Server; or the path of its socket.
        port : int, default 6379
            Port.
        database : int, default 0
            Database number.
        username : str
            User.
        password : str
            Password.
        ssl : bool, default False
            TLS; also by `rediss://`.
        ssl_ca_certs : str
            Path of the certificates that a server's must come from.
        ssl_certfile : str
            Path of the client's certificate.
        ssl_keyfile : str
            Path of the client's private key.
        prefix : str, default 'omniq'
            Of all keys.
        max_connections : int, default 10
            Size of the connection pool.
        timeout : float, default 30.0
            Seconds for one command, and for a server to come back.
        """
        return self._choose(
            "redis",
            url,
            host=host,
            port=port,
            database=database,
            username=username,
            password=password,
            ssl=ssl,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            prefix=prefix,
            max_connections=max_connections,
            timeout=timeout,
        )

    def postgres(
        self,
        url: str | None = None,
        *,
        host: str | None | UnsetType = UNSET,
        port: int | None | UnsetType = UNSET,
        database: str | None | UnsetType = UNSET,
        username: str | None | UnsetType = UNSET,
        password: str | None | UnsetType = UNSET,
        service: str | None | UnsetType = UNSET,
        schema: str | UnsetType = UNSET,
        sslmode: str | None | UnsetType = UNSET,
        sslrootcert: str | None | UnsetType = UNSET,
        sslcert: str | None | UnsetType = UNSET,
        sslkey: str | None | UnsetType = UNSET,
        min_connections: int | UnsetType = UNSET,
        max_connections: int | UnsetType = UNSET,
        timeout: float | UnsetType = UNSET,
    ) -> B:
        """A PostgreSQL database.

        Parameters
        ----------
        url : str, optional
            ``postgresql://user:password@host:5432/database``.
        host : str
            Server; several as ``a:5432,b:5432``, of which one that takes writes is used. Unless
            given: that of the service, PGHOST, or localhost.
        port : int
            Port; else the service's, PGPORT, or 5432.
        database : str
            Database; else the service's, PGDATABASE, or ``omniq``.
        username : str
            User; else the service's, PGUSER, or who runs this.
        password : str
            Password; else PGPASSWORD, or ~/.pgpass.
        service : str
            Name of a service in ~/.pg_service.conf.
        schema : str, default 'omniq'
            Schema of the tables.
        sslmode : str
            As in libpq.
        sslrootcert : str
            Path of the certificates that a server's must come from.
        sslcert : str
            Path of the client's certificate.
        sslkey : str
            Path of the client's private key.
        min_connections : int, default 1
            Connections kept open.
        max_connections : int, default 10
            Size of the connection pool.
        timeout : float, default 30.0
            Seconds for a connection or a statement, and for a server to come back.
        """
        return self._choose(
            "postgres",
            url,
            host=host,
            port=port,
            database=database,
            username=username,
            password=password,
            service=service,
            schema=schema,
            sslmode=sslmode,
            sslrootcert=sslrootcert,
            sslcert=sslcert,
            sslkey=sslkey,
            min_connections=min_connections,
            max_connections=max_connections,
            timeout=timeout,
        )

    def nats(
        self,
        url: str | None = None,
        *,
        servers: Sequence[str] | UnsetType = UNSET,
        stream: str | UnsetType = UNSET,
        username: str | None | UnsetType = UNSET,
        password: str | None | UnsetType = UNSET,
        token: str | None | UnsetType = UNSET,
        creds_file: str | None | UnsetType = UNSET,
        timeout: float | UnsetType = UNSET,
    ) -> B:
        """NATS servers with JetStream.

        Parameters
        ----------
        url : str, optional
            ``nats://host:4222,host:4222`` or ``tls://``.
        servers : Sequence[str], default ('nats://localhost:4222',)
            Servers; or comma-separated in the URL.
        stream : str, default 'omniq'
            Prefix of all streams: letters, digits, - and _.
        username : str
            User.
        password : str
            Password.
        token : str
            Token.
        creds_file : str
            Path of a credentials file.
        timeout : float, default 30.0
            Seconds for one request.
        """
        return self._choose(
            "nats",
            url,
            servers=servers,
            stream=stream,
            username=username,
            password=password,
            token=token,
            creds_file=creds_file,
            timeout=timeout,
        )

    def s3(
        self,
        url: str | None = None,
        *,
        bucket: str | None | UnsetType = UNSET,
        prefix: str | UnsetType = UNSET,
        endpoint_url: str | None | UnsetType = UNSET,
        region: str | None | UnsetType = UNSET,
        profile: str | None | UnsetType = UNSET,
        key: str | None | UnsetType = UNSET,
        secret: str | None | UnsetType = UNSET,
        token: str | None | UnsetType = UNSET,
        serialization_format: str | UnsetType = UNSET,
        storage_options: Mapping[str, object] | UnsetType = UNSET,
    ) -> B:
        """A bucket of S3, or of anything that speaks its protocol.

        Parameters
        ----------
        url : str, optional
            ``s3://bucket/prefix``.
        bucket : str
            Bucket, where no URL is given.
        prefix : str, default ''
            Of all objects.
        endpoint_url : str
            Another server than Amazon's.
        region : str
            Region.
        profile : str
            Profile of the credentials chain.
        key : str
            Access key id.
        secret : str
            Secret access key.
        token : str
            Session token.
        serialization_format : str, default 'msgpack'
            How plain values are packed, where that is exact.
        storage_options : Mapping[str, object]
            More, for `s3fs`.
        """
        return self._choose(
            "s3",
            url,
            bucket=bucket,
            prefix=prefix,
            endpoint_url=endpoint_url,
            region=region,
            profile=profile,
            key=key,
            secret=secret,
            token=token,
            serialization_format=serialization_format,
            storage_options=storage_options,
        )

    def gcs(
        self,
        url: str | None = None,
        *,
        bucket: str | None | UnsetType = UNSET,
        prefix: str | UnsetType = UNSET,
        endpoint_url: str | None | UnsetType = UNSET,
        project: str | None | UnsetType = UNSET,
        token: str | None | UnsetType = UNSET,
        serialization_format: str | UnsetType = UNSET,
        storage_options: Mapping[str, object] | UnsetType = UNSET,
    ) -> B:
        """A bucket of Google Cloud Storage.

        Parameters
        ----------
        url : str, optional
            ``gs://bucket/prefix``.
        bucket : str
            Bucket, where no URL is given.
        prefix : str, default ''
            Of all objects.
        endpoint_url : str
            Another server than Google's.
        project : str
            Project.
        token : str
            Path of a key file, or `google_default`...
        serialization_format : str, default 'msgpack'
            How plain values are packed, where that is exact.
        storage_options : Mapping[str, object]
            More, for `gcsfs`.
        """
        return self._choose(
            "gcs",
            url,
            bucket=bucket,
            prefix=prefix,
            endpoint_url=endpoint_url,
            project=project,
            token=token,
            serialization_format=serialization_format,
            storage_options=storage_options,
        )

    def azure(
        self,
        url: str | None = None,
        *,
        container: str | None | UnsetType = UNSET,
        prefix: str | UnsetType = UNSET,
        account_name: str | None | UnsetType = UNSET,
        account_key: str | None | UnsetType = UNSET,
        connection_string: str | None | UnsetType = UNSET,
        sas_token: str | None | UnsetType = UNSET,
        serialization_format: str | UnsetType = UNSET,
        storage_options: Mapping[str, object] | UnsetType = UNSET,
    ) -> B:
        """A container of Azure Blob Storage.

        Parameters
        ----------
        url : str, optional
            ``az://container/prefix`` or ``abfs://``.
        container : str
            Container, where no URL is given.
        prefix : str, default ''
            Of all blobs.
        account_name : str
            Storage account.
        account_key : str
            Its key.
        connection_string : str
            Instead of account and key.
        sas_token : str
            Shared access signature.
        serialization_format : str, default 'msgpack'
            How plain values are packed, where that is exact.
        storage_options : Mapping[str, object]
            More, for `adlfs`.
        """
        return self._choose(
            "azure",
            url,
            container=container,
            prefix=prefix,
            account_name=account_name,
            account_key=account_key,
            connection_string=connection_string,
            sas_token=sas_token,
            serialization_format=serialization_format,
            storage_options=storage_options,
        )

    def _choose(
        self, backend_type: str, url: str | os.PathLike[str] | None, **options: object
    ) -> B:
        with within(f"{self._name}."):
            backend = StorageBackendConfig(backend_type, plain(url), _given(**options))
        return self._chosen(backend)


class ConfigBuilder(Generic[T]):
    """Makes a configuration step by step. Tab completion shows every step.

    Parameters
    ----------
    project_name : str, optional
        Names the project's key and default places.
    connect : callable
        Makes a client of a configuration.
    """

    def __init__(self, project_name: str | None, connect: Callable[[OmniQConfig], T]) -> None:
        self._settings: dict[str, Any] = {}
        if project_name is not None:
            self._settings["project_name"] = project_name
        self._connect = connect
        self._backends: dict[str, StorageBackendConfig | str] = {}

    @property
    def task_queue(self) -> "BackendChoice[ConfigBuilder[T]]":
        """Choose where tasks are queued."""
        return self._choice("task_queue")

    @property
    def result_storage(self) -> "BackendChoice[ConfigBuilder[T]]":
        """Choose where results are kept."""
        return self._choice("result_storage")

    @property
    def event_storage(self) -> "BackendChoice[ConfigBuilder[T]]":
        """Choose where the history is kept."""
        return self._choice("event_storage")

    @property
    def schedule_storage(self) -> "BackendChoice[ConfigBuilder[T]]":
        """Choose where schedules are kept."""
        return self._choice("schedule_storage")

    @property
    def all(self) -> "BackendChoice[ConfigBuilder[T]]":
        """Choose one backend for all four."""
        return self._choice(*COMPONENTS)

    def settings(
        self,
        *,
        base_dir: str | UnsetType = UNSET,
        fsspec_uri: str | None | UnsetType = UNSET,
        log_level: str | UnsetType = UNSET,
        disable_logging: bool | UnsetType = UNSET,
        component_log_levels: Mapping[str, str] | UnsetType = UNSET,
        default_queue: str | UnsetType = UNSET,
        default_worker: str | UnsetType = UNSET,
        max_workers: int | UnsetType = UNSET,
        thread_workers: int | UnsetType = UNSET,
        process_workers: int | UnsetType = UNSET,
        task_timeout: float | None | UnsetType = UNSET,
        task_ttl: float | None | UnsetType = UNSET,
        result_ttl: float | None | UnsetType = UNSET,
        retry_attempts: int | UnsetType = UNSET,
        retry_delay: float | UnsetType = UNSET,
        strict: bool | UnsetType = UNSET,
        allowed_functions: Sequence[str] | UnsetType = UNSET,
    ) -> Self:
        """Settings of the library. Each is also ``OMNIQ_<NAME>`` in the environment.

        Parameters
        ----------
        base_dir : str
            Folder of backends whose place is not given.
        fsspec_uri : str
            Default place of file, s3, gcs or azure backends, whichever its scheme means:
            ``file:///data``, ``s3://bucket/prefix``.
        log_level : str
            Level of the logger ``omniq_nb``.
        disable_logging : bool
            Silence the library's loggers.
        component_log_levels : Mapping[str, str]
            Levels of single loggers below ``omniq_nb``, by name: ``{"worker": "DEBUG"}``; JSON
            in the environment.
        default_queue : str
            Queue of tasks that name none.
        default_worker : str
            Kind of worker that ``oq.workers.start()`` starts.
        max_workers : int
            The most tasks that one worker may run at the same time.
        thread_workers : int
            Tasks at the same time for thread and async workers.
        process_workers : int
            Tasks at the same time for process workers.
        task_timeout : float
            Seconds that an attempt may take.
        task_ttl : float
            Seconds after which an unstarted task expires.
        result_ttl : float
            Seconds for which a result is kept.
        retry_attempts : int
            Retries after a failed first attempt.
        retry_delay : float
            Seconds before the first retry; each further one waits twice as long.
        strict : bool
            Refuse pickled payloads and functions that are not allowed.
        allowed_functions : Sequence[str]
            Functions that strict mode lets run: ``module:name``, ``module:*`` or ``package.*``;
            comma-separated in the environment.
        """
        self._settings |= _given(
            base_dir=base_dir,
            fsspec_uri=fsspec_uri,
            log_level=log_level,
            disable_logging=disable_logging,
            component_log_levels=component_log_levels,
            default_queue=default_queue,
            default_worker=default_worker,
            max_workers=max_workers,
            thread_workers=thread_workers,
            process_workers=process_workers,
            task_timeout=task_timeout,
            task_ttl=task_ttl,
            result_ttl=result_ttl,
            retry_attempts=retry_attempts,
            retry_delay=retry_delay,
            strict=strict,
            allowed_functions=allowed_functions,
        )
        return self

    def build(self) -> OmniQConfig:
        """Make the configuration.

        Raises
        ------
        ConfigError
            A setting is wrong, or components follow each other in a circle.
        """
        given = {name: item for name, item in self._backends.items() if not isinstance(item, str)}
        config = self._config(given)
        followers = {name: self._followed(name) for name in self._backends if name not in given}
        if not followers:
            return config
        # What is followed may itself come from the environment: as it is now, so it is written.
        return self._config(given | {name: config.backend(f) for name, f in followers.items()})

    def connect(self) -> T:
        """Build, and make a client of it."""
        return self._connect(self.build())

    def to_yaml(self, path: str | os.PathLike[str] | None = None, *, secrets: bool = False) -> str:
        """Give the configuration as YAML. See `OmniQConfig.to_yaml`."""
        return self.build().to_yaml(path, secrets=secrets)

    def to_python(self, *, secrets: bool = False) -> str:
        """Give the configuration as Python code. See `OmniQConfig.to_python`."""
        return self.build().to_python(secrets=secrets)

    def __repr__(self) -> str:
        return f"<ConfigBuilder of {self.build()!r}>"

    def _config(self, backends: Mapping[str, StorageBackendConfig]) -> OmniQConfig:
        given: dict[str, Any] = {f"{name}_backend": item for name, item in backends.items()}
        return OmniQConfig(**given, **self._settings)

    def _choice(self, *components: str) -> "BackendChoice[ConfigBuilder[T]]":
        def chosen(choice: StorageBackendConfig | str) -> "ConfigBuilder[T]":
            self._backends |= dict.fromkeys(components, choice)
            return self

        return BackendChoice(components[0] if len(components) == 1 else "all", chosen)

    def _followed(self, component: str) -> str:
        """The component at the end of the chain of `like` that starts with this one."""
        chain = [component]
        while isinstance(choice := self._backends.get(chain[-1]), str):
            chain.append(choice)
            if choice in chain[:-1]:
                allowed = "components that do not follow each other in a circle"
                raise ConfigError("like", " -> ".join(chain), allowed)
        return chain[-1]
