"""A task queue and a schedule store whose truth is a totally ordered log of commands.

`log` says what a log must do; `file_log` and `memory_log` do it. `replica` folds a log into
state and publishes to it. `queue` and `schedules` are the two stores, over any log.
"""
