"""`docs/configuration.md`, written from the options: ``python -m omniq_nb.config.document``.

A test compares the file with what this writes.
"""

from pathlib import Path

import msgspec

from omniq_nb.config.model import COMPONENTS
from omniq_nb.config.options import BACKENDS, Settings, description, fields, is_secret
from omniq_nb.config.urls import EXAMPLES

PAGE = Path(__file__).parent.parent.parent / "docs" / "configuration.md"

INTRODUCTION = '''\
# Configuration

Four components, each with a backend of its own: `task_queue`, `result_storage`, `event_storage`,
`schedule_storage`. Values come from Python, a dictionary, YAML, URLs or the environment:

```python
from omniq_nb import OmniQConfig, StorageBackendConfig, configure

by_builder = configure("sweeps").task_queue.sqlite("tasks.db").result_storage.file("./r").build()

by_objects = OmniQConfig(
    project_name="sweeps",
    task_queue_backend=StorageBackendConfig(backend_type="sqlite", url="tasks.db"),
    result_storage_backend=StorageBackendConfig(backend_type="file", url="./r"),
)

by_yaml = OmniQConfig.from_yaml_text("""
project_name: sweeps
task_queue_backend: {backend_type: sqlite, url: tasks.db}
result_storage_backend: {backend_type: file, url: ./r}
""")

assert by_builder == by_objects == by_yaml
```

In the environment a component's backend is `OMNIQ_<COMPONENT>_TYPE` and `OMNIQ_<COMPONENT>_URL`,
for example `OMNIQ_TASK_QUEUE_URL=sqlite:///tasks.db`.

**Precedence** of a setting: explicit, environment, default. Of a component's backend: explicit,
environment, the task queue's backend, SQLite. A type without URL means that type's default place:
`<base_dir>/<project_name>.db` for SQLite, the folder `<base_dir>/<project_name>` for file, or
`fsspec_uri` for the backend that its scheme means; redis, postgres and nats have none. Options in
`config` win over the URL's, but the two must not name different places. Components that name the
same place with the same options share it, so that a task and its result are written in one
transaction.

**Variables**: `${VAR}` and `${VAR:-default}` may stand in any text. They stay as written when a
configuration is saved, and are read each time they are needed; `$${` stands for `${`. In the user
and password of a URL, the variable holds the password as it is; what you write there yourself
must be escaped (`/` as `%2F`, `@` as `%40`). Passwords and keys are never shown, and are written
to YAML or Python only as variables, unless you say `secrets=True`.

**Log levels** are those of the standard library's loggers `omniq_nb`, `omniq_nb.worker`,
`omniq_nb.schedules`, `omniq_nb.events` and `omniq_nb.storage`; where their messages go is up to
your own `logging` set-up. A level that you set yourself stays, unless the configuration names one.
'''


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## Settings\n", _table(Settings, "OMNIQ_")]
    for name, options in BACKENDS.items():
        about = (options.__doc__ or "").strip().replace("``", "`")
        parts += [f"## Backend `{name}`\n", f"{about} URL: {EXAMPLES[name]}\n"]
        if fields(options):
            parts.append(_table(options, ""))
    names = ", ".join(f"`{component}`" for component in COMPONENTS)
    parts.append(f"Every backend may serve each of {names}.\n")
    return "\n".join(parts)


def _table(options: type[msgspec.Struct], prefix: str) -> str:
    first = (
        "| setting | in the environment | default | what it does |"
        if prefix
        else ("| option | default | what it does |")
    )
    rows = [first, "|" + "---|" * (first.count("|") - 1)]
    for name, field in fields(options).items():
        default = "number of cores" if name == "process_workers" else _default(field)
        note = " Secret." if is_secret(field) else ""
        cells = [f"`{name}`", *([f"`{prefix}{name.upper()}`"] if prefix else []), default]
        rows.append("| " + " | ".join([*cells, description(field) + note]) + " |")
    return "\n".join(rows) + "\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None
    return "" if value is None or value in ({}, ()) or value == "" else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
