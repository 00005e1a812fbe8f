"""A notebook within the test: an `InteractiveShell` with the magics loaded."""

import atexit
import sys
import time
from contextlib import contextmanager

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


@contextmanager
def notebook():
    """A shell that is the only one, as in a kernel."""
    main = sys.modules["__main__"]  # the shell puts its own in the place, and leaves it there
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.run_line_magic("load_ext", "omniq_nb")
    try:
        yield Notebook(shell)
    finally:
        for client in list(shell.user_ns.values()):
            if type(client).__module__ == "omniq_nb.sync" and hasattr(client, "close"):
                client.close()
        shell.atexit_operations()
        atexit.unregister(shell.atexit_operations)
        InteractiveShell.clear_instance()
        sys.modules["__main__"] = main


class Notebook:
    """Runs cells. `values` are its variables."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.values = shell.user_ns

    def run(self, cell: str) -> object:
        """Run a cell; give its value, or raise what it raised. It printed nothing."""
        with capture_output() as captured:
            done = self.shell.run_cell(cell, store_history=True)
        self.printed = captured.stdout
        self.shown = captured.outputs
        error = done.error_before_exec or done.error_in_exec
        if error is not None:
            raise error
        return done.result

    def complete(self, line: str) -> list[str]:
        """What the tab key offers at the end of the line."""
        with provisionalcompleter():
            found = self.shell.Completer.completions(line, len(line))
            return [line[: one.start] + one.text for one in found]


def until(true, patience=60):
    """Wait for a condition."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
