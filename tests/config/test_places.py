"""Where a component ends up: URLs, paths, defaults, and who shares with whom."""

import pytest

from omniq_nb import configure
from omniq_nb.config import COMPONENTS, OmniQConfig, StorageBackendConfig
from omniq_nb.errors import ConfigError


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def resolved(backend, **settings):
    return OmniQConfig(task_queue_backend=backend, **settings).resolve("task_queue")


@pytest.mark.parametrize(
    ("url", "kind", "path"),
    [
        ("sqlite:///tasks.db", "sqlite", "tasks.db"),
        ("sqlite+aiosqlite:///tasks.db", "sqlite", "tasks.db"),
        ("sqlite:///./a/../tasks.db", "sqlite", "tasks.db"),
        ("sqlite:///a%20b.db", "sqlite", "a b.db"),
        ("sqlite:///a#b.db", "sqlite", "a#b.db"),
        ("tasks.SQLITE", "sqlite", "tasks.SQLITE"),
        ("./results", "file", "results"),
        ("a/b", "file", "a/b"),
        ("file://./results", "file", "results"),
    ],
)
def test_a_relative_path_is_in_the_working_directory(tmp_path, url, kind, path):
    assert resolved(url)[:2] == (kind, str(tmp_path / path))


@pytest.mark.parametrize("url", ["sqlite:////abs/x.db", "/abs/x.db", "file:///abs/x.db"])
def test_an_absolute_path_stays(url):
    assert resolved(url).location == "/abs/x.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", ":memory:"])
def test_sqlite_may_live_in_memory(url):
    assert resolved(url)[:2] == ("sqlite", ":memory:")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("rediss://u:p%40ss@h:1/2", {"host": "h", "port": 1, "database": 2, "ssl": True}),
        ("redis://[::1]:6379", {"host": "::1", "port": 6379}),
        ("postgresql+asyncpg://u:p@h/db?sslmode=require", {"database": "db", "sslmode": "require"}),
        ("nats://u:p@a:4222,b", {"servers": ("nats://a:4222", "nats://b"), "username": "u"}),
        ("tls://t0ken@a", {"servers": ("tls://a",), "token": "t0ken"}),
        ("s3://lab/a/b?region=eu", {"bucket": "lab", "prefix": "a/b", "region": "eu"}),
        ("gs://lab", {"bucket": "lab", "prefix": ""}),
        ("abfs://c/p", {"container": "c", "prefix": "p"}),
    ],
)
def test_a_url_says_the_options(url, options):
    found = StorageBackendConfig.from_url(url).options()
    assert {name: getattr(found, name) for name in options} == options


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_name_of_a_type_means_its_default_place(kind):
    assert StorageBackendConfig.from_url(kind) == StorageBackendConfig(kind)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memry", "'memory'"),
        ("results", r"\./data"),
        ("sqlite:///", "three slashes"),
        ("file://host/x", "file:///"),
        ("redis+sentinel://h", "redis://host.*Sentinel is not supported"),
        ("nats://u:p@a,v:q@b", "nats://"),
        ("s3:///x", "s3://bucket"),
        ("", "a URL or a path"),
        ("a\0/b", "path of this machine"),
    ],
)
def test_a_wrong_url_is_refused(url, message):
    with pytest.raises(ConfigError, match=message):
        StorageBackendConfig.from_url(url)


def test_url_and_options_may_say_the_place_twice_but_not_differently(tmp_path):
    both = StorageBackendConfig(
        "postgres",
        "postgresql://user:${PW:-pass}@localhost:5432/omniq",
        {"host": "localhost", "port": 5432, "password": None, "max_connections": 3},
    )
    assert both.options().password == "pass"
    assert both.options().max_connections == 3
    with pytest.raises(ConfigError, match=r"config\.port.*5432"):
        StorageBackendConfig("postgres", "postgresql://h:5432/db", {"port": 5433})
    assert resolved({"url": "./a", "config": {"base_dir": str(tmp_path / "a")}}).location
    with pytest.raises(ConfigError, match="base_dir"):
        StorageBackendConfig("file", "./a", {"base_dir": "./b"})


def test_a_folder_in_a_cloud_needs_that_clouds_type():
    with pytest.raises(ConfigError, match="backend_type must be 's3'"):
        StorageBackendConfig("file", config={"fsspec_uri": "s3://bucket"})
    with pytest.raises(ConfigError, match="storage_options"):
        StorageBackendConfig("file", config={"base_dir": "x", "storage_options": {"anon": True}})
    customers = {"base_dir": "./data", "fsspec_uri": None, "storage_options": {}}
    assert StorageBackendConfig("file", config=customers).options().fsspec_uri is None


@pytest.mark.parametrize("kind", ["redis", "postgres", "nats", "s3", "gcs", "azure"])
def test_a_server_or_bucket_has_no_default_place(kind):
    with pytest.raises(ConfigError, match=r"task_queue_backend\.url.*://"):
        resolved(StorageBackendConfig(kind))


def test_fsspec_uri_is_the_default_place_of_its_type_only():
    config = OmniQConfig(
        task_queue_backend="sqlite",
        result_storage_backend="s3",
        event_storage_backend="s3://own/x",
        schedule_storage_backend="file",
        fsspec_uri="s3://lab/omniq",
    )
    assert config.resolve("result_storage").options.bucket == "lab"
    assert config.resolve("event_storage").options.bucket == "own"
    assert config.location("schedule_storage").endswith("/.omniq/omniq")
    assert config.location("task_queue").endswith("/.omniq/omniq.db")
    with pytest.raises(ConfigError, match="fsspec_uri"):
        OmniQConfig(fsspec_uri="redis://h")


@pytest.mark.parametrize("project", ["..", ".", "../x", "a/b", "a\nb", "a\0b", "é🦊", "a%2Fb", "~"])
def test_any_project_name_is_one_file_in_the_base_directory(tmp_path, project):
    path = resolved("sqlite", project_name=project).location
    folder, _, name = path.rpartition("/")
    assert folder == str(tmp_path / ".omniq")
    assert name.isprintable()
    assert path != resolved("sqlite", project_name="a_b").location


def test_equal_places_are_equal_however_they_are_written(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = ["t.db", "./t.db", "sqlite:///x/../t.db", f"sqlite:///{tmp_path}/t.db", "link/t.db"]
    assert len({resolved(spelling).location for spelling in spellings}) == 1
    assert resolved("memory://a") != resolved("memory://b")
    assert resolved("memory://") == resolved("memory")


def test_the_place_does_not_follow_the_kernel_to_another_directory(monkeypatch, tmp_path):
    config = configure().all.sqlite("t.db").build()
    first = config.location("task_queue")
    assert {config.location(component) for component in COMPONENTS} == {first}
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir("sub")
    assert config.location("task_queue") != first  # resolved when asked, not when written


def test_like_means_the_backend_that_the_other_component_has(monkeypatch):
    monkeypatch.setenv("OMNIQ_TASK_QUEUE_URL", "sqlite:///q.db")
    monkeypatch.setenv("OMNIQ_RESULT_STORAGE_TYPE", "memory")
    config = configure().result_storage.like("task_queue").build()
    assert config.get_result_storage_backend_config().url == "sqlite:///q.db"
    assert OmniQConfig.from_yaml_text(config.to_yaml()) == config
