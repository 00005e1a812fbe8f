"""SQL over whatever stores are configured: the views `tasks results events schedules workers`.

`views` says what the views hold, `catalogue` fills them from the stores, `session` is the
locked DuckDB connection in which a query runs, `statements` decides whether it may,
`structure` finds the types of arguments and values, `frames` makes data frames.

Importing this loads neither DuckDB, pyarrow nor pandas.
"""

from omniq_nb.explore.catalogue import Explorer
from omniq_nb.explore.frames import to_frame
from omniq_nb.explore.views import VIEWS

__all__ = ["VIEWS", "Explorer", "to_frame"]
