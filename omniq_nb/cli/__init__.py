"""The command line: ``omniq-nb``, or ``python -m omniq_nb``.

Exit codes: 0, it is done; 1, it could not be done (no such task, nothing to cancel, a check that
failed); 2, the words or the configuration are wrong; 3, a store cannot be reached; 130,
interrupted.

Not here: the commands (`omniq_nb.cli.commands`), and how rows look (`omniq_nb.cli.output`).
"""

import sys

import click

from omniq_nb.cli.commands import cli
from omniq_nb.errors import ConfigError, OmniQError, QueryError, StoreError

NOT_DONE, WRONG, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


def main() -> None:
    """Run a command and leave Python with its exit code."""
    try:
        sys.exit(cli.main(prog_name="omniq-nb", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever reads our output has seen enough.
        sys.stderr.close()
        sys.exit(0)
    except OmniQError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(_code(error))


def _code(error: OmniQError) -> int:
    if isinstance(error, ConfigError | QueryError):
        return WRONG
    return UNREACHABLE if isinstance(error, StoreError) else NOT_DONE
