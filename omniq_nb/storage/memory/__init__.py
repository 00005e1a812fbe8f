"""All four components in the memory of one process: nothing to set up, nothing that stays.

Results and events are dicts (`results`, `events`); tasks and schedules are the journal family
over a list (`omniq_nb.storage.journal`). What these stores do is the model that the others are
compared with.
"""

from omniq_nb.storage.memory.place import MemoryPlace as MemoryPlace
