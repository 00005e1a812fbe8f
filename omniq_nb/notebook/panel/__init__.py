"""The panel: choose backends, start workers, watch, explore; one widget with a tab for each.

`frame` holds the tabs together; each of `backends`, `workers`, `activity` and `explore` is one
of them. `draft` is a configuration in the making, `rows` a query's result, `drawing` and
`charts` draw, `pieces` are the parts that ipywidgets lacks, `errands` keep the kernel free.
"""

from typing import TYPE_CHECKING

from omniq_nb.errors import ConfigError

if TYPE_CHECKING:
    from omniq_nb.notebook.panel.frame import Panel
    from omniq_nb.sync import OmniQ


def panel(oq: "OmniQ | None" = None) -> "Panel":
    """Open the panel. A cell that is run again closes the one that it opened before.

    Parameters
    ----------
    oq : OmniQ, optional
        The client to steer. Without one, begin by choosing backends: *Connect* makes the client,
        as ``panel.oq``, and as ``oq`` in the notebook if nothing else has that name.

    Returns
    -------
    Panel
        Show it as the last line of a cell.

    Raises
    ------
    ConfigError
        The libraries for it are not installed.
    """
    try:
        from omniq_nb.notebook.panel.frame import open_panel
    except ModuleNotFoundError as error:
        allowed = 'what is installed: pip install "omniq_nb[notebook]"'
        raise ConfigError("panel", error.name, allowed) from None
    return open_panel(oq)
