"""What a user chooses is what a user gets, whichever way it was said."""

import inspect
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from omniq_nb import OmniQ, configure
from omniq_nb.config import COMPONENTS, OmniQConfig, StorageBackendConfig
from omniq_nb.config.builder import BackendChoice, ConfigBuilder
from omniq_nb.config.logging import apply_logging
from omniq_nb.config.model import fields
from omniq_nb.config.options import BACKENDS, Settings
from omniq_nb.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("OMNIQ_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OMNIQ_SECRET_KEY", "test")
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- the customer's examples


def test_the_environment_example(monkeypatch):
    monkeypatch.setenv("OMNIQ_TASK_QUEUE_TYPE", "sqlite")
    monkeypatch.setenv("OMNIQ_TASK_QUEUE_URL", "sqlite:///tasks.db")
    monkeypatch.setenv("OMNIQ_RESULT_STORAGE_TYPE", "file")
    monkeypatch.setenv("OMNIQ_RESULT_STORAGE_URL", "./results")
    monkeypatch.setenv("OMNIQ_EVENT_STORAGE_TYPE", "memory")
    monkeypatch.setenv("OMNIQ_SCHEDULE_STORAGE_TYPE", "sqlite")
    monkeypatch.setenv("OMNIQ_SCHEDULE_STORAGE_URL", "sqlite:///schedules.db")
    with OmniQ() as omniq:
        omniq.workers.start(1)
        assert omniq.submit(len, "abc").result(timeout=30) == 3
        kinds = [omniq.config.backend(component).backend_type for component in COMPONENTS]
    assert kinds == ["sqlite", "file", "memory", "sqlite"]


def test_the_python_example():
    config = OmniQConfig(
        task_queue_backend=StorageBackendConfig(backend_type="sqlite", url="sqlite:///tasks.db"),
        result_storage_backend=StorageBackendConfig(
            backend_type="file", config={"base_dir": "./results", "serialization_format": "json"}
        ),
        event_storage_backend=StorageBackendConfig(backend_type="memory"),
        schedule_storage_backend=StorageBackendConfig(
            backend_type="sqlite", url="sqlite:///schedules.db"
        ),
    )
    with OmniQ(config=config) as omniq:
        omniq.workers.start(1)
        assert omniq.submit(len, "abc").result(timeout=30) == 3
        assert omniq.config is config


def test_the_yaml_example(tmp_path):
    (tmp_path / "config.yaml").write_text(
        """
        project_name: "my_omniq_app"

        task_queue_backend:
          backend_type: "sqlite"
          url: "sqlite:///tasks.db"

        result_storage_backend:
          backend_type: "file"
          config:
            base_dir: "./results"
            serialization_format: "json"

        event_storage_backend:
          backend_type: "memory"

        schedule_storage_backend:
          backend_type: "sqlite"
          url: "sqlite:///schedules.db"

        default_ttl: 3600
        log_level: "INFO"
        """
    )
    config = OmniQConfig.from_yaml("config.yaml")
    assert config.project_name == "my_omniq_app"
    assert config.settings.task_ttl == 3600
    with OmniQ(config=config) as omniq:
        omniq.workers.start(1)
        assert omniq.submit(len, "abc").result(timeout=30) == 3


def test_the_single_backend_example():
    from omniq_nb.backend.sqlite import SQLiteBackend

    with OmniQ(backend=SQLiteBackend()) as omniq:
        assert omniq.config.get_event_storage_backend_config().backend_type == "sqlite"


# ---------------------------------------------------------------- precedence


def test_explicit_then_environment_then_task_queue_then_sqlite(monkeypatch):
    assert OmniQConfig().get_result_storage_backend_config().backend_type == "sqlite"
    config = OmniQConfig(task_queue_backend="memory://")
    assert config.get_result_storage_backend_config().backend_type == "memory"
    monkeypatch.setenv("OMNIQ_RESULT_STORAGE_URL", "./r")
    assert config.get_result_storage_backend_config().backend_type == "file"
    config = OmniQConfig(result_storage_backend="sqlite:///r.db")
    assert config.get_result_storage_backend_config().url == "sqlite:///r.db"


def test_settings_too(monkeypatch):
    assert OmniQConfig().retry_attempts == 0
    monkeypatch.setenv("OMNIQ_RETRY_ATTEMPTS", "4")
    assert OmniQConfig().retry_attempts == 4
    assert OmniQConfig(retry_attempts=2).retry_attempts == 2
    written = OmniQConfig.from_env()
    monkeypatch.delenv("OMNIQ_RETRY_ATTEMPTS")
    assert written.retry_attempts == 4
    assert written.describe_sources()["retry_attempts"] == (4, "config")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("disable_logging", "true", True),
        ("disable_logging", "0", False),
        ("component_log_levels", '{"worker": "DEBUG"}', {"worker": "DEBUG"}),
        ("log_level", "debug", "DEBUG"),
        ("task_timeout", "1.5", 1.5),
        ("allowed_functions", "a:b, c.*", ("a:b", "c.*")),
        ("default_worker", "process", "process"),
    ],
)
def test_the_environment_is_text(monkeypatch, name, text, value):
    monkeypatch.setenv(f"OMNIQ_{name.upper()}", text)
    assert getattr(OmniQConfig(), name) == value
    assert getattr(OmniQConfig.from_env(), name) == value


def test_a_type_without_url_gets_its_own_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNIQ_TASK_QUEUE_URL", "sqlite:///tasks.db")
    monkeypatch.setenv("OMNIQ_RESULT_STORAGE_TYPE", "file")
    monkeypatch.setenv("OMNIQ_BASE_DIR", "base")
    monkeypatch.setenv("OMNIQ_PROJECT_NAME", "a/b")
    config = OmniQConfig()
    assert config.location("task_queue") == str(tmp_path / "tasks.db")
    assert config.location("result_storage") == str(tmp_path / "base" / "a%2Fb")
    monkeypatch.setenv("OMNIQ_FSSPEC_URI", f"file://{tmp_path}/elsewhere")
    assert config.location("result_storage") == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "url", ["tasks.db", "./tasks.db", "sqlite:///tasks.db", "sqlite:///${HERE:-.}/tasks.db"]
)
def test_spellings_of_one_place(tmp_path, url):
    config = OmniQConfig(task_queue_backend=url)
    assert config.location("task_queue") == str(tmp_path / "tasks.db")


# ---------------------------------------------------------------- round trips


URLS = {
    "memory": ["memory://"],
    "sqlite": ["tasks.db", "sqlite:///a b.db", "sqlite:////abs/x.db", ":memory:"],
    "file": ["./data", "file:///data"],
    "redis": ["redis://localhost:6379/0", "rediss://u:${PW}@host/1"],
    "postgres": ["postgresql://u:${PW}@host:5432/db", "postgres://h/db?sslmode=require"],
    "nats": ["nats://a:4222,b:4222", "tls://host"],
    "s3": ["s3://lab/results"],
    "gcs": ["gs://lab", "gcs://lab/x"],
    "azure": ["az://c/p", "abfs://c"],
}
OPTIONS = {
    "sqlite": {"timeout": 5, "synchronous": "FULL"},
    "file": {"fsync": False},
    "redis": {"prefix": "x", "password": "${PW}"},
    "s3": {"endpoint_url": "${S3_ENDPOINT:-http://localhost}"},
}


@st.composite
def configs(draw):
    given = {}
    for component in COMPONENTS:
        kind = draw(st.sampled_from([None, *BACKENDS]))
        if kind is not None:
            url = draw(st.sampled_from([None, *URLS[kind]]))
            options = draw(st.sampled_from([None, OPTIONS.get(kind)]))
            given[f"{component}_backend"] = StorageBackendConfig(kind, url, options)
    given |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "project_name": st.text(min_size=1) | st.just("${PROJECT:-x}"),
                "retry_attempts": st.integers(0, 9),
                "task_ttl": st.floats(1, 1e6),
                "log_level": st.sampled_from(["INFO", "DISABLED"]),
                "component_log_levels": st.just({"worker": "DEBUG"}),
                "allowed_functions": st.just(["a:b"]),
            },
        )
    )
    return OmniQConfig(**given)


@given(configs())
def test_yaml_dict_and_python_give_an_equal_configuration(config):
    assert OmniQConfig.from_dict(config.to_dict()) == config
    assert OmniQConfig.from_yaml_text(config.to_yaml()) == config
    namespace = {}
    exec(config.to_python(), namespace)
    assert namespace["config"] == config
    assert namespace["config"].to_yaml() == config.to_yaml()


def test_variables_stay_as_written_and_are_read_when_needed(monkeypatch):
    config = configure().all.postgres("postgresql://u:${PW}@h/db", schema="${S:-s}").build()
    assert "${PW}" in config.to_yaml()
    assert "${S:-s}" in config.to_yaml()
    with pytest.raises(ConfigError, match="PW"):
        config.backend("task_queue").options()
    monkeypatch.setenv("PW", "secret")
    options = config.backend("task_queue").options()
    assert (options.password, options.schema, options.host) == ("secret", "s", "h")
    assert "secret" not in repr(config) + config.to_yaml() + config.to_python()


def test_a_dollar_can_be_escaped():
    config = OmniQConfig(project_name="$${not_a_variable}")
    assert config.project_name == "${not_a_variable}"


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "backend",
    [
        StorageBackendConfig("redis", config={"password": "hunter2"}),
        StorageBackendConfig("postgres", "postgresql://u:hunter2@h/db"),
        StorageBackendConfig("nats", "nats://a:4222,nats://u:hunter2@b:4222"),
        StorageBackendConfig("azure", config={"connection_string": "AccountKey=hunter2"}),
        StorageBackendConfig("s3", "s3://b", {"key": "k", "secret": "hunter2"}),
        StorageBackendConfig("redis", "redis://h?password=hunter2"),
    ],
    ids=lambda backend: backend.backend_type,
)
def test_secrets_are_neither_shown_nor_written(backend):
    config = OmniQConfig(task_queue_backend=backend)
    assert "hunter2" not in repr(config) + repr(backend) + str(config.describe_sources())
    for write in (config.to_yaml, config.to_python):
        with pytest.raises(ConfigError, match=r"\$\{VAR\}") as caught:
            write()
        assert "hunter2" not in str(caught.value)
        assert "hunter2" in write(secrets=True)


def test_secrets_are_not_in_errors():
    with pytest.raises(ConfigError) as caught:
        StorageBackendConfig("redis", "redis://u:hunter2@h:99999/0")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        StorageBackendConfig("redis", config={"password": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task_queue": {}}, "task_queue.*Did you mean 'task_queue_backend'"),
        ({"task_queue_backend": {"backend_type": "sqllite"}}, "backend_type.*'sqlite'"),
        ({"task_queue_backend": {"type": "sqlite"}}, r"task_queue_backend\.type"),
        (
            {"result_storage_backend": {"backend_type": "sqlite", "config": {"timeot": 1}}},
            r"result_storage_backend\.config\.timeot.*'timeout'",
        ),
        (
            {"event_storage_backend": {"backend_type": "sqlite", "config": {"timeout": "soon"}}},
            r"event_storage_backend\.config\.timeout.*'soon'",
        ),
        (
            {
                "event_storage_backend": {
                    "backend_type": "sqlite",
                    "config": {"synchronous": "NORML"},
                }
            },
            "OFF, NORMAL, FULL, EXTRA.*'NORMAL'",
        ),
        ({"task_queue_backend": "redsi://h"}, "redsi.*'redis'"),
        ({"task_queue_backend": {"backend_type": "redis", "url": "sqlite:///x"}}, "means sqlite"),
        ({"task_queue_backend": {"backend_type": "redis", "url": "redis://h:port"}}, "well-formed"),
        ({"task_queue_backend": "redis+sentinel://h"}, "redis\\+sentinel"),
        ({"task_queue_backend": "sqlite://x.db"}, "three slashes"),
        ({"task_queue_backend": 5}, "task_queue_backend"),
        ({"retry_attempts": -1}, "retry_attempts.*-1"),
        ({"retry_attempts": "many"}, "retry_attempts.*'many'"),
        ({"log_level": "LOUD"}, "DEBUG, INFO"),
        ({"retry_atempts": 1}, "retry_attempts"),
    ],
    ids=str,
)
def test_bad_input_is_one_error_that_says_what_is_allowed(given, message):
    with pytest.raises(ConfigError, match=message):
        OmniQConfig.from_dict(given)


def test_a_bad_environment_names_the_variable(monkeypatch):
    monkeypatch.setenv("OMNIQ_MAX_WORKERS", "lots")
    with pytest.raises(ConfigError, match=r"OMNIQ_MAX_WORKERS.*'lots'"):
        OmniQ("memory://")


@pytest.mark.parametrize("text", ["a: 1\na: 2", "[1]", "a: [", "log_level: DEBUG\nlog_level: INFO"])
def test_bad_yaml_is_an_error_in_words(text):
    with pytest.raises(ConfigError):
        OmniQConfig.from_yaml_text(text)


def test_a_missing_file_is_an_error_in_words():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        OmniQConfig.from_yaml("nowhere.yaml")


def test_config_errors_are_value_errors():
    with pytest.raises(ValueError, match="unsupported_backend"):
        StorageBackendConfig(backend_type="unsupported_backend")


def test_followers_in_a_circle_are_refused():
    builder = configure().task_queue.like("event_storage").event_storage.like("task_queue")
    with pytest.raises(ConfigError, match="circle"):
        builder.build()
    with pytest.raises(ConfigError, match="task_queue"):
        configure().event_storage.like("taskqueue")


def test_a_place_that_is_no_text_is_refused_by_the_builder():
    with pytest.raises(ConfigError, match=r"task_queue\.url: got 5"):
        configure().task_queue.sqlite(5)


# ---------------------------------------------------------------- one list of options


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_builder_has_exactly_the_options_of_each_backend(kind):
    parameters = inspect.signature(getattr(BackendChoice, kind)).parameters
    named = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert named == list(fields(BACKENDS[kind]))
    assert all(parameters[name].default is UNSET for name in named)
    doc = getattr(BackendChoice, kind).__doc__
    assert all(f"{name} : " in doc for name in named)


def test_the_builder_has_exactly_the_settings():
    parameters = inspect.signature(ConfigBuilder.settings).parameters
    assert [n for n in parameters if n != "self"] == [
        n for n in fields(Settings) if n != "project_name"
    ]


def test_log_levels_are_applied_below_our_logger_only():
    root = logging.getLogger().level
    apply_logging(OmniQConfig(log_level="ERROR", component_log_levels={"worker": "DEBUG"}))
    assert logging.getLogger("omniq_nb.events").getEffectiveLevel() == logging.ERROR
    assert logging.getLogger("omniq_nb.worker").getEffectiveLevel() == logging.DEBUG
    apply_logging(OmniQConfig(disable_logging=True))
    assert not logging.getLogger("omniq_nb.events").isEnabledFor(logging.CRITICAL)
    logging.getLogger("omniq_nb.worker").setLevel(logging.NOTSET)
    apply_logging(OmniQConfig())
    assert logging.getLogger().level == root
