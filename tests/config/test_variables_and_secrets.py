"""``${VAR}`` is kept and expanded where it should, and no secret is ever shown."""

import copy
import pickle
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omniq_nb.config import OmniQConfig, StorageBackendConfig
from omniq_nb.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "environment", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("${A}", {"A": ""}, None),
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("a${A}b${B:-c}", {"A": "1"}, "a1bc"),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $", {}, "$A $"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_expansion_is_a_shells(monkeypatch, text, environment, value):
    for name, content in environment.items():
        monkeypatch.setenv(name, content)
    config = OmniQConfig(default_queue=text)
    if value is None:
        with pytest.raises(ConfigError, match="default_queue"):
            _ = config.default_queue
    else:
        assert config.default_queue == value
    assert config.to_dict() == {"default_queue": text}


@pytest.mark.parametrize("text", ["${A", "${1}", "${A-x}", "${A:?no}", "${A:-${B}}", "${}"])
def test_what_only_looks_like_a_variable_is_refused(text):
    with pytest.raises(ConfigError, match=r"base_dir.*\$\$\{"):
        OmniQConfig(base_dir=text)
    with pytest.raises(ConfigError, match=r"config\.prefix"):
        StorageBackendConfig("redis", config={"prefix": text})


def test_variables_may_stand_everywhere(monkeypatch):
    config = OmniQConfig.from_yaml_text(
        """
        retry_attempts: ${RETRIES:-2}
        task_queue_backend:
          backend_type: ${KIND:-redis}
          url: redis://${HOST:-h}:${PORT:-7}
          config: {max_connections: "${N:-3}"}
        result_storage_backend: {backend_type: nats, config: {servers: "${A:-nats://a},nats://b"}}
        event_storage_backend: redis://:${PW}@h
        """
    )
    assert config.retry_attempts == 2
    backend = config.get_task_queue_backend_config()
    assert backend.backend_type == "redis"
    assert (backend.options().host, backend.options().port) == ("h", 7)
    assert backend.options().max_connections == 3
    servers = config.get_result_storage_backend_config().options().servers
    assert servers == ("nats://a", "nats://b")
    monkeypatch.setenv("KIND", "redsi")
    with pytest.raises(ConfigError, match=r"task_queue_backend\.backend_type.*'redis'"):
        config.get_task_queue_backend_config()
    assert OmniQConfig.from_yaml_text(config.to_yaml()) == config


def test_the_environment_may_refer_to_other_variables(monkeypatch):
    monkeypatch.setenv("OMNIQ_BASE_DIR", "${ROOM:-x}/omniq")
    assert OmniQConfig().base_dir == "x/omniq"
    assert OmniQConfig.from_env().base_dir == "x/omniq"


@given(
    password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
)
def test_a_password_from_a_variable_needs_no_escaping(password):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW", password)
        backend = StorageBackendConfig("redis", "redis://u:${PW}@h:1/2")
        options = backend.options()
    assert (options.password, options.host, options.port) == (password, "h", 1)
    other = StorageBackendConfig("redis", "redis://u:another@h:1/2").options()
    assert repr(options) == repr(other), "nothing that is shown depends on it"


WRITTEN = [
    ("redis", "redis://u:{}@h/0", None),
    ("postgres", "postgresql://u:{}@h/db", None),
    ("postgres", "postgresql://u@h/db?password={}", None),
    ("nats", "nats://a:4222,nats://u:{}@b", None),
    ("nats", None, {"servers": ["nats://u:{}@a"]}),
    ("redis", None, {"password": "{}"}),
    ("redis", None, {"password": "${{PW:-{}}}"}),
    ("s3", "s3://b", {"endpoint_url": "https://u:{}@host"}),
    ("s3", "s3://b", {"storage_options": {"client_kwargs": {"aws_secret_access_key": "{}"}}}),
    ("azure", None, {"container": "c", "connection_string": "AccountKey={}"}),
]
PASSWORDS = ["hunter2", "hun/ter2", "hun?ter2", "hun#ter2", "hun@ter2", "hun,ter2", "hun:ter2"]


def filled(value, password):
    if isinstance(value, str):
        return value.format(password)
    if isinstance(value, dict):
        return {key: filled(item, password) for key, item in value.items()}
    return [filled(item, password) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(("kind", "url", "config"), WRITTEN, ids=str)
def test_a_written_secret_is_shown_nowhere(kind, url, config, password):
    shown = []
    try:
        backend = StorageBackendConfig(kind, filled(url, password), filled(config, password))
    except ConfigError as error:  # not every password may stand unescaped in a URL
        shown += [str(error), repr(error.value)]
    else:
        whole = OmniQConfig(task_queue_backend=backend)
        shown += [repr(backend), repr(whole), str(whole.describe_sources())]
        try:
            shown.append(repr(backend.options()))
        except ConfigError as error:
            shown.append(str(error))
        for write in (whole.to_yaml, whole.to_python):
            with pytest.raises(ConfigError, match="secret") as caught:
                write()
            shown.append(str(caught.value))
        assert OmniQConfig.from_yaml_text(whole.to_yaml(secrets=True)) == whole
    for part in ("hun", "ter2"):
        assert not any(part in text for text in shown), shown


@pytest.mark.parametrize("token", ["hunter2", "hun/ter2", "hun?ter2", "hun#ter2", "hun@ter2"])
def test_a_token_of_nats_is_not_shown(token):
    try:
        shown = repr(StorageBackendConfig.from_url(f"nats://{token}@a"))
    except ConfigError as error:
        shown = str(error)
    assert "hun" not in shown
    assert "ter2" not in shown
    assert "nats://***" in shown


def test_a_mistyped_option_does_not_show_its_value():
    for config in ({"pasword": "hunter2"}, {"password": ["hunter2"]}, {"port": "hunter2@"}):
        with pytest.raises(ConfigError) as caught:
            StorageBackendConfig("redis", config=config)
        if "port" not in config:
            assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        OmniQConfig.from_yaml_text("task_queue_backend: {url: 'redis://u:hunter2@h'\n x: [")
    assert "hunter2" not in str(caught.value)


def test_settings_hide_the_password_of_a_uri_too():
    config = OmniQConfig(fsspec_uri="s3://key:hunter2@bucket")
    assert "hunter2" not in repr(config) + repr(config.settings) + str(config.describe_sources())
    with pytest.raises(ConfigError, match="fsspec_uri"):
        config.to_yaml()


def test_a_file_with_secrets_is_for_its_owner_only(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("old")
    OmniQConfig(task_queue_backend="redis://:pw@h").to_yaml(path, secrets=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert OmniQConfig.from_yaml(path).get_task_queue_backend_config().options().password == "pw"


def test_a_configuration_does_not_change_and_travels():
    config = OmniQConfig(task_queue_backend="redis://:${PW}@h", retry_attempts=1)
    for target in (config, config.task_queue_backend):
        with pytest.raises(AttributeError):
            target.url = "x"
        assert pickle.loads(pickle.dumps(target)) == copy.deepcopy(target) == target
    with pytest.raises(AttributeError, match="new one"):
        config.retry_attempts = 2
    assert "retry_attempts" in dir(config)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = config.retries
