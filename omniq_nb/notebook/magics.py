"""The magics `%omniq`, `%%task` and `%omniq_sql`: what `OmniQ` does, in a notebook's own words.

They give objects back and print nothing. An error is one line.

Not here: what `%%task` ships and shows (`omniq_nb.notebook.travel`, `omniq_nb.notebook.cells`),
and how variables get into SQL (`omniq_nb.notebook.binding`).
"""

# IPython's decorators have no types.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"

import keyword
import re
import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)
from IPython.core.magic_arguments import MagicArgumentParser, argument, magic_arguments
from traitlets import Unicode

from omniq_nb.core.options import Options
from omniq_nb.errors import ConfigError, UnknownTask
from omniq_nb.explore.views import identifier
from omniq_nb.notebook.cells import Cells
from omniq_nb.sync import Batch, Handle, OmniQ

if TYPE_CHECKING:
    import pandas as pd

Command = Callable[["OmniqMagics", Namespace], object]

_ASSIGNED = re.compile(r"\s*([^\W\d]\w*)\s*<<(?!\S)")
_OPTION = re.compile(r"\s*(--?[A-Za-z][\w-]*)(?:=|\s+|$)(\S*)")
_KEY_VALUE = re.compile(r"([^\W\d]\w*)=(.*)")


def words(line: str) -> list[str]:
    r"""Split a magic's line as a shell would, but leave backslashes, which paths have.

    Examples
    --------
    >>> words("connect 'my work/omniq.yaml' --x=\"a b\" c:\\temp")
    ['connect', 'my work/omniq.yaml', '--x=a b', 'c:\\temp']
    """
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.escape = lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError as error:
        raise UsageError(f"{error}: {line}") from None


@magics_class
class OmniqMagics(Magics):
    """The magics of one notebook, and the client that they use."""

    variable = Unicode(
        "oq", help="The name under which `%omniq connect` puts the client into the notebook."
    ).tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._made: OmniQ | None = None
        self.cells = Cells(shell)

    @property
    def names(self) -> dict[str, Any]:
        """The notebook's variables."""
        assert self.shell is not None
        names: dict[str, Any] = self.shell.user_ns
        return names

    # ---------------------------------------------------------------- %omniq

    @line_magic
    def omniq(self, line: str = "") -> object:
        """Use a task queue by words: `%omniq COMMAND`. These are the commands."""
        given = words(line)
        name = given.pop(0) if given else "status"
        if name == "workers":
            name += f" {given.pop(0)}" if given else " list"
        command = COMMANDS.get(name)
        if command is None:
            raise UsageError(f"%omniq {name}: no such command. There are: {', '.join(COMMANDS)}")
        return command(self, parser_of(command).parse_args(given))

    @magic_arguments("omniq connect")
    @argument("where", nargs="?", help="A URL, or the path of a YAML file.")
    def _connect(self, given: Namespace) -> OmniQ:
        """Connect, and put the client into the notebook; without WHERE as the environment says.

        A client that this command made before is closed.
        """
        name = self.variable
        taken = self.names.get(name)
        if taken is not None and not isinstance(taken, OmniQ):
            raise ConfigError(
                "OmniqMagics.variable",
                name,
                f"a name that is free: yours is a {type(taken).__name__}. Choose another one: "
                f"%config OmniqMagics.variable = 'queue'",
            )
        made = OmniQ(given.where)
        if self._made is not None:
            self._made.close()
        self._made = self.names[name] = made
        return made

    @magic_arguments("omniq disconnect")
    def _disconnect(self, given: Namespace) -> None:
        """Close the client and take its name out of the notebook. Running tasks may finish."""
        client = self.existing()
        if client is None:
            raise ConfigError("disconnect", None, "a client, and there is none: %omniq connect")
        client.close()
        for name in [n for n, value in self.names.items() if value is client]:
            del self.names[name]
        self._made = None

    @magic_arguments("omniq status")
    def _status(self, given: Namespace) -> OmniQ:
        """Give the client: where it keeps things, and what is queued and running there."""
        return self.client()

    @magic_arguments("omniq config")
    def _config(self, given: Namespace) -> object:
        """Give the configuration. It has .to_yaml() and .to_python()."""
        return self.client().config

    @magic_arguments("omniq panel")
    def _panel(self, given: Namespace) -> object:
        """Show the panel: choose backends, start workers, watch, explore."""
        return import_module("omniq_nb.notebook.panel").panel(self.existing())

    @magic_arguments("omniq workers list")
    def _workers(self, given: Namespace) -> object:
        """Give the workers: what runs, where, and how well. `%omniq workers` does it, too."""
        return self.client().workers

    @magic_arguments("omniq workers start")
    @argument("n", nargs="?", type=int, help="Tasks that are to run at the same time.")
    @argument("--kind", "-k", help="What runs them: thread, async, process...")
    @argument("--queues", "-q", help="Which queues are asked, in this order: a,b,c.")
    def _start(self, given: Namespace) -> object:
        """Have N tasks run at the same time. Again: only the number changes."""
        queues = None if given.queues is None else given.queues.split(",")
        workers = self.client().workers
        workers.start(given.n, given.kind, queues)
        return workers

    @magic_arguments("omniq workers stop")
    @argument("--drain", "-d", action="store_true", help="First work until the queues are empty.")
    def _stop(self, given: Namespace) -> object:
        """Stop this notebook's workers when what runs is done, or after ten seconds."""
        workers = self.client().workers
        workers.stop(drain=given.drain)
        return workers

    @magic_arguments("omniq tasks")
    @argument("filters", nargs="*", help="COLUMN=VALUE or COLUMN=A,B: state=failed name=fit.")
    @argument("--limit", "-l", type=int, default=100, help="At most so many rows; 100 unless said.")
    def _tasks(self, given: Namespace) -> "pd.DataFrame":
        """Give the newest tasks as a data frame, newest first."""
        where: dict[str, list[str]] = {}
        for text in given.filters:
            found = _KEY_VALUE.fullmatch(text)
            if found is None:
                raise UsageError(f"%omniq tasks: {text!r} is no filter. COLUMN=VALUE is one")
            where[found[1]] = found[2].split(",")
        client = self.client()
        conditions = " AND ".join(
            f"{identifier(column)}::VARCHAR IN ({', '.join('?' * len(values))})"
            for column, values in where.items()
        )
        query = f"SELECT * FROM tasks WHERE {conditions or 'true'} ORDER BY created_at DESC LIMIT ?"
        parameters = [value for values in where.values() for value in values]
        return client.sql(query, [*parameters, given.limit])

    @magic_arguments("omniq retry")
    @argument("tasks", nargs="+", help="Task ids, names of batches, or of handles in the notebook.")
    def _retry(self, given: Namespace) -> int:
        """Queue tasks again that failed, expired or were cancelled. Gives how many that were."""
        client = self.client()
        return client.requeue(*self.ids(client, given.tasks))

    @magic_arguments("omniq cancel")
    @argument("tasks", nargs="+", help="Task ids, names of batches, or of handles in the notebook.")
    def _cancel(self, given: Namespace) -> int:
        """Cancel tasks, queued or running. Gives how many were not over yet."""
        client = self.client()
        return client.cancel(*self.ids(client, given.tasks))

    # ---------------------------------------------------------------- %%task

    @cell_magic
    @magic_arguments("task")
    @argument("name", nargs="?", help="A variable that gets the handle; the task's name, too.")
    @argument(
        "-i",
        "--inputs",
        metavar="NAMES",
        help="Variables that travel besides those that the cell reads, however large: a,b.",
    )
    @argument(
        "-o",
        "--outputs",
        metavar="NAMES",
        help="Variables that come back when the task succeeded: a,b.",
    )
    @argument("--queue", "-q", help="The queue.")
    @argument("--retries", "-r", type=int, help="Retries after the first attempt.")
    @argument("--timeout", "-t", type=float, help="The most seconds that one attempt may take.")
    @argument(
        "--after",
        "-a",
        metavar="TASKS",
        help="Tasks that must succeed first, by id or by the name of a handle or batch: a,b.",
    )
    def task(self, line: str, cell: str) -> Handle[Any]:
        """Run this cell as a task, with the variables that it reads. The notebook stays free.

        Output, state and value appear below the cell. Run again while it runs, the cell
        cancels its run before.
        """
        given = parser_of(OmniqMagics.task).parse_args(words(line))
        options: Options = {}
        if given.queue is not None:
            options["queue"] = given.queue
        if given.retries is not None:
            options["retries"] = given.retries
        if given.timeout is not None:
            options["timeout"] = given.timeout
        inputs, outputs = _listed(given.inputs), _listed(given.outputs)
        own = [] if given.name is None else [given.name]
        for option, names in {"-i": inputs, "-o": outputs, "NAME": own}.items():
            for name in names:
                _check_name(option, name)
        taken = self.names.get(given.name)
        if taken is not None and not isinstance(taken, Handle):
            allowed = f"a name that is free: yours is a {type(taken).__name__}"
            raise ConfigError("NAME", given.name, allowed)
        client = self.client()
        if given.after is not None:
            options["after"] = self.ids(client, _listed(given.after))
        handle = self.cells.run(client, cell, given.name, inputs, outputs, options)
        if given.name is not None:
            self.names[given.name] = handle
        return handle

    # ---------------------------------------------------------------- %omniq_sql

    @needs_local_scope
    @no_var_expand
    @line_cell_magic
    @magic_arguments("omniq_sql")
    @argument("-o", "--out", metavar="NAME", help="The variable that gets the data frame.")
    @argument("-l", "--limit", type=int, help="At most so many rows.")
    @argument("sql", nargs="*", help="One query that reads. `NAME << SELECT ...` is -o NAME.")
    def omniq_sql(
        self, line: str, cell: str | None = None, local_ns: Mapping[str, object] | None = None
    ) -> "pd.DataFrame | None":
        """Query the views tasks, results, events, schedules and workers, in DuckDB's SQL.

        {name} and :name stand for the values of variables. Gives a pandas data frame, unless
        a variable gets it.
        """
        given, query = _options_and_query(line if cell is None else f"{line}\n{cell}")
        if given.out is not None:
            _check_name("-o", given.out)
        if not query.strip():
            raise UsageError("%omniq_sql: there is no query. %omniq_sql? shows what it may be")
        from omniq_nb.notebook.binding import bare, bind

        if given.limit is not None:
            query = f"FROM ({bare(query)}\n) LIMIT {given.limit}"
        variables = {**self.names, **(local_ns or {})}
        bound, parameters = bind(query, variables.__getitem__)
        frame = self.client().sql(bound, parameters or None)
        if given.out is None:
            return frame
        self.names[given.out] = frame
        return None

    # ---------------------------------------------------------------- which client, which tasks

    def client(self) -> OmniQ:
        """The client to use: the notebook's one, or a new one as the environment says."""
        return self.existing() or self._connect(Namespace(where=None))

    def existing(self) -> OmniQ | None:
        """The notebook's open client, if there is one.

        Raises
        ------
        ConfigError
            There are several, and none of them has the name of the trait `variable`.
        """
        found = {
            name: value
            for name, value in self.names.items()
            if isinstance(value, OmniQ) and not value._caller.closed and not name.startswith("_")
        }
        if self.variable in found:
            return found[self.variable]
        if len({id(client) for client in found.values()}) > 1:
            raise ConfigError(
                "OmniqMagics.variable",
                self.variable,
                f"one of {', '.join(sorted(found))}: say which client the magics are to use: "
                f"%config OmniqMagics.variable = {sorted(found)[0]!r}",
            )
        return next(iter(found.values()), None)

    def ids(self, client: OmniQ, names: list[str]) -> list[str]:
        """Task ids of what these words name: handles and batches of the notebook, ids, batches.

        Raises
        ------
        UnknownTask
            A word names none.
        """
        ids: list[str] = []
        for name in names:
            value = self.names.get(name)
            if isinstance(value, Handle):
                ids.append(value.id)
            elif isinstance(value, Batch):
                ids += value.ids
            else:
                try:
                    ids.append(client.handle(name).info().id)
                except UnknownTask:
                    ids += _batch_ids(client, name)
        return ids


def _batch_ids(client: OmniQ, name: str) -> tuple[str, ...]:
    try:
        return client.batch(name).ids
    except UnknownTask:
        raise UnknownTask(
            f"{name!r} is neither the id of a task, nor the name of a batch, nor of a handle or "
            f"batch in this notebook. %omniq tasks lists them"
        ) from None


def _options_and_query(text: str) -> tuple[Namespace, str]:
    """What stands before the SQL, and the SQL."""
    options: list[str] = []
    end = 0
    while found := _OPTION.match(text, end):
        options += [found[1], found[2]]
        end = found.end()
    given = parser_of(OmniqMagics.omniq_sql).parse_args(options)
    if found := _ASSIGNED.match(text, end):
        given.out, end = found[1], found.end()
    return given, text[end:]


def parser_of(command: object) -> MagicArgumentParser:
    """What `@magic_arguments` made of the decorators of a command."""
    return cast(MagicArgumentParser, vars(command)["parser"])


def _listed(names: str | None) -> list[str]:
    return [] if names is None else [name.strip() for name in names.split(",")]


def _check_name(option: str, name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(option, name, "the name of a variable")


COMMANDS: dict[str, Command] = {
    parser_of(command).prog.removeprefix("omniq "): command
    for command in vars(OmniqMagics).values()
    if str(getattr(command, "argcmd_name", "")).startswith("omniq ")
}
"""The commands of `%omniq`, by name."""

OmniqMagics.omniq.__doc__ = "\n".join(
    [str(OmniqMagics.omniq.__doc__), *(str(command.__doc__) for command in COMMANDS.values())]
)


def load(shell: InteractiveShell) -> None:
    """Make the magics known to a notebook: ``%load_ext omniq_nb``."""
    from omniq_nb.notebook.completion import Completer

    magics = OmniqMagics(shell)
    shell.register_magics(magics)
    for name in _KEYS:
        shell.set_hook("complete_command", Completer(magics), str_key=name)


def unload(shell: InteractiveShell) -> None:
    """Take the magics back: ``%unload_ext omniq_nb``. The client and the work go on."""
    magics = shell.magics_manager.registry.pop("OmniqMagics")
    for kind in shell.magics_manager.magics.values():
        for name in [name for name, magic in kind.items() if _owner(magic) is magics]:
            del kind[name]
    for name in _KEYS:
        shell.strdispatchers["complete_command"].strs.pop(name, None)
    shell.configurables.remove(magics)


def _owner(magic: object) -> object:
    return getattr(magic, "__self__", None)


_KEYS = ("%omniq", "%%task", "%omniq_sql", "%%omniq_sql")
"""How lines begin that have completions of ours."""
