"""What is typed into the panel becomes a configuration, or says what is wrong with it."""

import msgspec
import pytest

from omniq_nb import OmniQConfig
from omniq_nb.config.model import COMPONENTS
from omniq_nb.config.options import BACKENDS, fields, is_secret
from omniq_nb.errors import ConfigError
from omniq_nb.notebook.panel.draft import Draft, fields_of

WHOLE = {
    "memory": {},
    "sqlite": {"url": "sqlite:///tasks.db", "synchronous": "FULL", "timeout": "5.0"},
    "file": {"url": "./folder", "fsync": "no"},
    "redis": {"url": "redis://${HOST}:6379/1", "password": "${PASSWORD}", "ssl": "yes"},
    "postgres": {"host": "db", "port": "5433", "sslmode": "require"},
    "nats": {"servers": "nats://a:4222, nats://b:4222", "token": "${TOKEN}"},
    "s3": {"url": "s3://bucket/p", "storage_options": '{"use_ssl": false}', "key": "${KEY}"},
    "gcs": {"url": "gs://bucket/p", "project": "lab"},
    "azure": {"url": "az://container/p", "account_key": "${KEY}"},
}
"""For each backend, something in several fields."""


def filled(kind, texts):
    draft = Draft(OmniQConfig(task_queue_backend="memory://"))
    draft.choose("task_queue", kind)
    for name, text in texts.items():
        draft.write("task_queue", name, text)
    return draft


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_fields_are_those_of_the_struct(kind):
    drawn = fields_of(kind)
    known = fields(BACKENDS[kind])
    assert [field.name for field in drawn] == (["url", *known] if known else [])
    for field in drawn[1:]:
        assert (field.kind == "secret") == is_secret(known[field.name])
        assert field.label and field.label[0].isupper()


@pytest.mark.parametrize("kind", BACKENDS)
def test_what_was_typed_survives_yaml(kind):
    draft = filled(kind, WHOLE[kind])
    config = draft.config()
    again = OmniQConfig.from_yaml_text(config.to_yaml())
    assert again == config
    assert Draft(again).config() == config
    assert Draft(again).shown("task_queue") == draft.shown("task_queue")
    for component in COMPONENTS:
        assert config.backend(component).backend_type == kind


def test_values_have_the_types_of_their_fields():
    config = filled("postgres", WHOLE["postgres"]).config()
    assert config.task_queue_backend.config == {
        "host": "db",
        "port": 5433,
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    ("kind", "texts", "field", "words"),
    [
        ("redis", {"port": "abc"}, "port", "got 'abc'"),
        ("redis", {"port": "70000"}, "port", "65535"),
        ("sqlite", {"synchronous": "FUL"}, "synchronous", "Did you mean 'FULL'?"),
        ("sqlite", {"url": "redis://host"}, "url", "this one means redis"),
        ("postgres", {"url": "postgresql://a:1", "port": "2"}, "port", "the same as in the url"),
        ("postgres", {"min_connections": "11"}, "min_connections", "at most max_connections"),
        ("file", {"storage_options": '{"a": 1}'}, "storage_options", "nothing for local folders"),
        ("s3", {}, "url", "config with 'bucket'"),
        ("s3", {"storage_options": "{"}, "storage_options", "Expected `object`"),
        ("redis", {"url": "redis://${NOT_SET_HERE}"}, "url", "NOT_SET_HERE to be set"),
        ("nats", {"url": "nats://host", "timeout": "${"}, "timeout", "${VAR}"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(kind, texts, field, words):
    problems = filled(kind, texts).problems("task_queue")
    assert list(problems) == [field]
    assert words in problems[field]


def test_several_mistakes_are_all_said():
    problems = filled("redis", {"port": "x", "timeout": "-1", "host": "fine"}).problems(
        "task_queue"
    )
    assert problems.keys() == {"port", "timeout"}


def test_wrong_texts_make_no_configuration():
    draft = filled("redis", {"port": "abc"})
    with pytest.raises(ConfigError, match=r"task_queue_backend.port: got 'abc'"):
        draft.config()


@pytest.mark.parametrize(
    ("kind", "name", "text", "shown"),
    [
        ("redis", "password", "hunter2", ""),
        ("redis", "password", "${PASSWORD}", "${PASSWORD}"),
        ("redis", "url", "redis://me:hunter2@host/0", "redis://me:***@host/0"),
        ("redis", "url", "redis://me:hunter2", ""),
        ("redis", "url", "hunter2", ""),
        ("s3", "storage_options", '{"client": {"secret": "hunter2"}}', ""),
        ("s3", "storage_options", '{"client": {"secret": "hunter2"', ""),
        ("s3", "endpoint_url", "http://me:hunter2@host", ""),
    ],
)
def test_secrets_are_kept_but_not_shown(kind, name, text, shown):
    draft = filled(kind, {name: text})
    texts, held = draft.shown("task_queue")
    assert texts == {name: shown}
    assert held == ([] if text == shown else [name])
    assert "hunter2" not in repr(draft.problems("task_queue"))


def test_each_component_may_have_its_own_or_be_like_another():
    draft = Draft(OmniQConfig(task_queue_backend="memory://"))
    assert draft.same
    draft.same = False
    draft.choose("event_storage", "file")
    draft.write("event_storage", "url", "./events")
    draft.choose("schedule_storage", "like event_storage")
    config = draft.config()
    assert [config.backend(component).backend_type for component in COMPONENTS] == [
        *("memory", "memory", "file", "file")
    ]
    again = Draft(config)
    assert not again.same and again.config() == config
    draft.choose("event_storage", "like task_queue")
    assert draft.chosen["schedule_storage"] == "like task_queue"
    with pytest.raises(ConfigError, match="like event_storage"):
        draft.choose("schedule_storage", "like event_storage")


def test_who_looks_at_another_type_finds_his_texts_again():
    draft = filled("redis", {"host": "somewhere"})
    draft.choose("task_queue", "sqlite")
    assert draft.shown("task_queue") == ({}, [])
    draft.choose("task_queue", "redis")
    assert draft.shown("task_queue") == ({"host": "somewhere"}, [])


def test_an_emptied_field_is_the_default():
    draft = filled("redis", {"host": "somewhere"})
    draft.write("task_queue", "host", " ")
    assert draft.config().task_queue_backend.config is None


def test_the_environment_does_not_overrule_what_is_seen(monkeypatch):
    draft = Draft(OmniQConfig(task_queue_backend="memory://"))
    monkeypatch.setenv("OMNIQ_EVENT_STORAGE_URL", "./elsewhere")
    assert draft.config().backend("event_storage").backend_type == "memory"


def test_settings_are_kept():
    config = OmniQConfig(task_queue_backend="memory://", retry_attempts=3, project_name="p")
    assert Draft(config).config() == config


def test_fields_can_be_sent_to_a_page():
    for kind in BACKENDS:
        msgspec.json.encode(fields_of(kind))
