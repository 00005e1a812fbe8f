"""A folder that holds all four components: two journals, and Parquet files beside them.

::

    queue/       the tasks' log (omniq_nb.storage.journal.file_log)
    schedules/   the schedules' log
    results/     Parquet segments (omniq_nb.storage.objects)
    events/

No name in it is derived from what a user chose.
"""
