"""Texts of YAML and the environment, and what else may stand in a configuration."""

import inspect
import logging
from pathlib import Path

import pytest

from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.config.document import PAGE, page
from omniq_nb.config.logging import apply_logging
from omniq_nb.config.options import Settings, fields
from omniq_nb.errors import ConfigError


def test_the_documentation_shows_the_options_that_there_are():
    assert PAGE.read_text() == page(), "run python -m omniq_nb.config.document"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log_level: INFO\nlog_level: INFO", r"log_level: .*line 2"),
        ("task_queue_backend: {url: a.db, url: b.db}", r"task_queue_backend\.url: .*again"),
        ("event_storage_backend:\n  config: {a: 1, a: 2}", r"event_storage_backend\.config\.a"),
        ("task_queue_backend: {backend_type: sqlite, config: [1]}", "task_queue_backend.config"),
        ("task_queue_backend: &a [*a]", "task_queue_backend"),
        ("project_name: 5", "project_name.*str"),
        ("1: 2", "1: got 'an unknown key'"),
        ("retry_attempts: true", "retry_attempts"),
        ("task_timeout: .inf", "task_timeout.*finite"),
        ("retry_delay: .nan", "retry_delay"),
        ("component_log_levels: {worker: LOUD}", "component_log_levels"),
        ("default_ttl: 1\ntask_ttl: 2", "not both"),
        ("default_ttl: -1", "default_ttl.*-1"),
        ("base_dir: !!python/object:os.system x", "well-formed"),
        ("task_queue_backend: {backend_type: postgres, config: {min_connections: 11}}", "at most"),
        ("task_queue_backend: {backend_type: postgres, config: {sslmode: requir}}", "'require'"),
    ],
)
def test_a_wrong_yaml_names_the_key_and_what_is_allowed(text, message):
    with pytest.raises(ConfigError, match=message):
        OmniQConfig.from_yaml_text(text)


def test_paths_and_tuples_are_written_as_yaml_has_them(tmp_path):
    config = OmniQConfig(
        base_dir=tmp_path,
        allowed_functions=("a:b",),
        task_queue_backend=StorageBackendConfig("nats", config={"servers": ("nats://a",)}),
        result_storage_backend=Path("results.db"),
        event_storage_backend=StorageBackendConfig("file", config={"base_dir": Path("events")}),
    )
    assert OmniQConfig.from_yaml_text(config.to_yaml()) == config
    assert "&id" not in OmniQConfig.from_dict({"component_log_levels": {"a": "INFO"}}).to_yaml()


def test_what_yaml_cannot_hold_is_an_error_in_words():
    backend = StorageBackendConfig("s3", "s3://b", {"storage_options": {"session": object()}})
    with pytest.raises(ConfigError, match="yaml: got 'a object'"):
        OmniQConfig(task_queue_backend=backend).to_yaml()


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("On", True), ("no", False)])
def test_the_environment_may_say_yes(monkeypatch, text, value):
    monkeypatch.setenv("OMNIQ_DISABLE_LOGGING", f" {text} ")
    assert OmniQConfig().disable_logging is value


@pytest.mark.parametrize("read", [lambda: OmniQConfig().settings, OmniQConfig.from_env])
def test_a_wrong_variable_is_named_as_it_is_written(monkeypatch, read):
    monkeypatch.setenv("OMNIQ_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigError, match=r"^OMNIQ_LOG_LEVEL: got 'LOUD'"):
        read()


def test_type_and_url_in_the_environment_must_agree(monkeypatch):
    monkeypatch.setenv("OMNIQ_EVENT_STORAGE_TYPE", "file")
    monkeypatch.setenv("OMNIQ_EVENT_STORAGE_URL", "sqlite:///x.db")
    with pytest.raises(ConfigError, match=r"OMNIQ_EVENT_STORAGE: url.*sqlite"):
        OmniQConfig().get_event_storage_backend_config()


def test_none_means_not_given_except_where_it_is_a_value(monkeypatch):
    monkeypatch.setenv("OMNIQ_RETRY_ATTEMPTS", "3")
    monkeypatch.setenv("OMNIQ_TASK_TIMEOUT", "5")
    config = OmniQConfig(retry_attempts=None, task_timeout=None)
    assert (config.retry_attempts, config.task_timeout) == (3, None)


def test_the_constructor_shows_every_setting():
    assert set(fields(Settings)) < set(inspect.signature(OmniQConfig).parameters)


@pytest.fixture
def loggers():
    names = ["omniq_nb", "omniq_nb.one", "omniq_nb.two"]
    before = [logging.getLogger(name).level for name in names]
    yield [logging.getLogger(name) for name in names]
    apply_logging(OmniQConfig())
    for name, level in zip(names, before, strict=True):
        logging.getLogger(name).setLevel(level)


def test_a_configuration_takes_back_the_levels_of_the_one_before(loggers):
    library, one, two = loggers
    apply_logging(OmniQConfig(log_level="ERROR", component_log_levels={"one": "debug"}))
    two.setLevel(logging.INFO)
    apply_logging(OmniQConfig())
    assert (library.level, one.level, two.level) == (logging.WARNING, logging.NOTSET, logging.INFO)


def test_a_level_of_the_users_own_stays_unless_a_setting_names_one(loggers):
    apply_logging(OmniQConfig())
    loggers[0].setLevel(logging.DEBUG)
    apply_logging(OmniQConfig())
    assert loggers[0].level == logging.DEBUG
    apply_logging(OmniQConfig(log_level="INFO"))
    assert loggers[0].level == logging.INFO
