"""The commands. Each loads what it needs when it runs, so that help and completion are quick."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
import msgspec
from click.shell_completion import get_completion_class

from omniq_nb.cli.output import Row, show, show_json
from omniq_nb.models.task import State

if TYPE_CHECKING:
    import pyarrow as pa

    from omniq_nb.config import OmniQConfig
    from omniq_nb.models.task import WorkerInfo
    from omniq_nb.sync import OmniQ

F = TypeVar("F", bound=Callable[..., Any])

ISOLATIONS = ("thread", "async", "process", "process-per-task")
STATES = tuple(state.value for state in State)
SHELLS = ("bash", "zsh", "fish")


def place(command: F) -> F:
    """Give a command the options that say where the tasks are."""
    config = click.option(
        "--config",
        "-c",
        "config_file",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="A YAML file, as config.to_yaml() writes it.",
    )
    backend = click.option(
        "--backend", "-b", metavar="URL", help="One backend for all four components."
    )
    return config(backend(command))


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="omniq_nb", prog_name="omniq-nb")
def cli() -> None:
    """The task queue that lives in a notebook, from the shell.

    Without --config or --backend, the environment says where the tasks are (OMNIQ_TASK_QUEUE_URL
    and so on), and without that they are in SQLite below the folder .omniq.
    """


# ---------------------------------------------------------------- workers


@cli.command()
@place
@click.option("--queues", "-q", metavar="A,B", help="Which queues to ask, in this order.")
@click.option(
    "--concurrency", "-n", type=click.IntRange(1), help="How many tasks run at the same time."
)
@click.option(
    "--kind",
    "-k",
    type=click.Choice(ISOLATIONS),
    default="process",
    show_default=True,
    help="What runs them.",
)
@click.option("--idle-timeout", type=float, metavar="SECONDS", help="End after so long idle.")
@click.option("--max-tasks", type=click.IntRange(1), help="Begin afresh after so many tasks.")
@click.option("--max-memory", metavar="SIZE", help="Begin afresh beyond this, like '2 GB'.")
def worker(
    config_file: str | None,
    backend: str | None,
    queues: str | None,
    concurrency: int | None,
    kind: str,
    **limits: object,
) -> None:
    """Run tasks, here, until told to stop.

    Ctrl-C or SIGTERM lets it finish what runs and end; the second one gives back what runs.
    """
    import logging

    from omniq_nb.core.launch.base import WorkerOrder, check_shared
    from omniq_nb.core.launch.serve import Ending, Service, serve

    if os.name != "posix":
        raise click.UsageError("workers from the command line need a POSIX system")
    config = _config(config_file, backend)
    check_shared(config, "command line")
    settings = config.settings
    threads = kind in ("thread", "async")
    names = [name.strip() for name in (queues or settings.default_queue).split(",")]
    order, _ = WorkerOrder.checked(
        tuple(name for name in names if name),
        {
            "isolation": kind,
            "concurrency": concurrency
            or (settings.thread_workers if threads else settings.process_workers),
            **limits,
        },
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("omniq_nb.launch").setLevel(logging.INFO)
    if serve(Service(config, order, kind)) is Ending.SPENT:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@cli.command()
@place
@click.option("--timeout", type=float, default=10.0, show_default=True, metavar="SECONDS",
              help="Then what still runs is given back.")  # fmt: skip
@click.option("--drain", is_flag=True, help="First work until the queues are empty.")
def stop(config_file: str | None, backend: str | None, timeout: float, drain: bool) -> None:
    """Stop the background workers of this configuration on this machine."""
    with _client(config_file, backend) as oq:
        oq.workers.stop(kind="background", drain=drain, timeout=timeout)


@cli.command()
@place
@as_json
def status(config_file: str | None, backend: str | None, as_json: bool) -> None:
    """How many tasks are in which state, and who works on them."""
    with _client(config_file, backend) as oq:
        counts = oq.counts()
        workers = [info for info in oq.workers.list() if info.state != "stopped"]
    if as_json:
        show_json({"queues": counts, "workers": workers})
        return
    rows = [
        {"queue": queue, **{state: states.get(state, 0) for state in STATES}}
        for queue, states in cast("dict[str, dict[str, int]]", counts).items()
    ]
    show(rows, as_json=False, title="Tasks", empty="no tasks")
    click.echo()
    show([_described(info) for info in workers], as_json=False, title="Workers", empty="no workers")


def _described(info: "WorkerInfo") -> Row:
    return {
        "worker": info.id,
        "kind": info.kind,
        "state": info.state,
        "queues": ", ".join(info.queues),
        "running": f"{info.running} of {info.concurrency}",
        "succeeded": info.succeeded,
        "failed": info.failed,
        "heartbeat": f"{max(0.0, time.time() - info.heartbeat_at):.0f} s ago",
        "log": info.log,
    }


# ---------------------------------------------------------------- tasks


@cli.command()
@place
@as_json
@click.option("--state", "-s", type=click.Choice(STATES), multiple=True, help="Only these.")
@click.option("--queue", "-q", help="Only of this queue.")
@click.option("--batch", help="Only of this batch.")
@click.option("--limit", "-l", type=click.IntRange(1), default=20, show_default=True,
              help="At most so many, the newest ones.")  # fmt: skip
def tasks(
    config_file: str | None,
    backend: str | None,
    as_json: bool,
    state: Sequence[str],
    queue: str | None,
    batch: str | None,
    limit: int,
) -> None:
    """List tasks, newest last."""
    wanted = {"state": list(state), "queue": queue, "batch": batch}
    where = [f"{name} in (select unnest($%s))" % name for name, value in wanted.items() if value]
    columns = "task_id, name, queue, batch, state, attempt, worker, created_at, duration, error"
    query = f"""
        select * from (
            select {columns} from tasks
            {"where " + " and ".join(where) if where else ""}
            order by created_at desc limit {limit}
        ) order by created_at
    """
    parameters = {
        name: value if isinstance(value, list) else [value]
        for name, value in wanted.items()
        if value
    }
    with _client(config_file, backend) as oq:
        rows = _rows(oq, query, parameters)
    show(rows, as_json=as_json, empty="no such tasks")


def some_tasks(command: F) -> F:
    """Give a command the words that name tasks."""
    ids = click.argument("ids", nargs=-1, metavar="[ID]...")
    batch = click.option("--batch", help="All tasks of this batch.")
    return ids(batch(command))


@cli.command()
@place
@some_tasks
def cancel(
    config_file: str | None, backend: str | None, ids: Sequence[str], batch: str | None
) -> None:
    """Cancel tasks, queued or running."""
    with _client(config_file, backend) as oq:
        _report(oq.cancel(*_named(oq, ids, batch)), "cancelled")


@cli.command()
@place
@some_tasks
def requeue(
    config_file: str | None, backend: str | None, ids: Sequence[str], batch: str | None
) -> None:
    """Queue tasks again that failed, expired or were cancelled."""
    with _client(config_file, backend) as oq:
        _report(oq.requeue(*_named(oq, ids, batch)), "queued again")


@cli.command()
@place
@as_json
@click.argument("query")
def sql(config_file: str | None, backend: str | None, as_json: bool, query: str) -> None:
    """Query tasks, results, events, schedules and workers with DuckDB."""
    with _client(config_file, backend) as oq:
        rows = _rows(oq, query)
    show(rows, as_json=as_json, empty="no rows")


@cli.command()
@place
@as_json
@click.option("--older-than", required=True, metavar="SPAN", help="Like 30d, 12h or 1h30m.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def purge(
    config_file: str | None, backend: str | None, as_json: bool, older_than: str, yes: bool
) -> None:
    """Forget finished tasks, results and events that are old."""
    from omniq_nb.core.scheduling import parse_trigger
    from omniq_nb.errors import ConfigError, ScheduleError

    try:
        seconds = parse_trigger(every=older_than)["every"]
    except ScheduleError as error:
        raise ConfigError("--older-than", older_than, error.allowed) from None
    before = time.time() - cast(float, seconds)
    with _client(config_file, backend) as oq:
        if not yes:
            moment = datetime.fromtimestamp(before).astimezone()
            click.confirm(
                f"Forget everything from before {moment:%Y-%m-%d %H:%M}?", abort=True, err=True
            )
        counts = oq.purge(before)
    if as_json:
        show_json(counts)
    else:
        click.echo(", ".join(f"{n} {what}" for what, n in counts.items()) + " forgotten")


# ---------------------------------------------------------------- configuration


@cli.command()
@place
def compact(config_file: str | None, backend: str | None) -> None:
    """Make few large pieces of many small ones, now: in folders and buckets."""
    import asyncio

    from omniq_nb.storage.maintenance import compact as compacted

    done = asyncio.run(compacted(_config(config_file, backend)))
    click.echo(f"compacted: {', '.join(done)}" if done else "nothing here needs compacting")


def _deeply(config: "OmniQConfig", repair: bool, as_json: bool) -> None:
    import asyncio

    from omniq_nb.storage.maintenance import inspect

    found = asyncio.run(inspect(config, repair))
    rows = [
        {"component": component, **msgspec.structs.asdict(one)}
        for component, findings in found.items()
        for one in findings
    ]
    show(rows, as_json=as_json, empty="nothing is torn, missing or left over")
    if any(one["harm"] for one in rows):
        raise click.exceptions.Exit(1)


@cli.command()
@place
@as_json
@click.option("--deep", is_flag=True, help="Read every piece of folders and buckets.")
@click.option("--repair", is_flag=True, help="With --deep: delete what nobody can need.")
def check(
    config_file: str | None, backend: str | None, as_json: bool, deep: bool, repair: bool
) -> None:
    """Try a configuration out: open each store, and say what it promises."""
    import asyncio

    from omniq_nb.storage.probe import probe

    config = _config(config_file, backend)
    if repair and not deep:
        raise click.UsageError("--repair goes with --deep")
    if deep:
        _deeply(config, repair, as_json)
        return
    tried = asyncio.run(probe(config))
    if as_json:
        show_json(tried)
    for one in [] if as_json else tried:
        verdict = f"{one.seconds * 1000:.0f} ms" if one.problem is None else "cannot be used"
        click.secho(
            f"{one.component} on {one.backend_type or 'nothing'}: {verdict}",
            fg="green" if one.problem is None else "red",
            bold=True,
        )
        for topic, words in {"place": one.place, **one.promises, "problem": one.problem}.items():
            if words:
                click.echo(f"  {topic}: {words}")
    if any(one.problem for one in tried):
        raise click.exceptions.Exit(1)


@cli.command()
@place
@as_json
def config(config_file: str | None, backend: str | None, as_json: bool) -> None:
    """Show every setting with its value, and where that comes from. Secrets are not shown."""
    described = _config(config_file, backend).describe_sources()
    rows = [
        {"setting": name, "value": value if as_json else str(value), "source": source}
        for name, (value, source) in described.items()
    ]
    show(rows, as_json=as_json)


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete our words: eval "$(omniq-nb completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "omniq-nb", "_OMNIQ_NB_COMPLETE").source())


# ---------------------------------------------------------------- what they share


def _config(file: str | None, backend: str | None) -> "OmniQConfig":
    from omniq_nb.config import OmniQConfig
    from omniq_nb.core.client import configuration

    if file is not None and backend is not None:
        raise click.UsageError("--config or --backend, not both")
    return OmniQConfig.from_yaml(file) if file is not None else configuration(None, backend)


def _client(file: str | None, backend: str | None) -> "OmniQ":
    from omniq_nb.sync import OmniQ

    return OmniQ(_config(file, backend))


def _rows(oq: "OmniQ", query: str, parameters: dict[str, list[str]] | None = None) -> list[Row]:
    table = cast("pa.Table", oq.sql(query, parameters, kind="arrow"))
    rows: list[Row] = table.to_pylist()
    return rows


def _named(oq: "OmniQ", ids: Sequence[str], batch: str | None) -> Sequence[str]:
    if bool(ids) == bool(batch):
        raise click.UsageError("name tasks by their ids or by --batch")
    return oq.batch(batch).ids if batch else ids


def _report(n: int, what: str) -> None:
    click.echo(f"{n} {what}")
    if n == 0:
        raise click.exceptions.Exit(1)
