"""What is stored and configured, as msgspec Structs: no I/O, no clock.

`task` (tasks, retries, claims, workers), `result`, `event`, `schedule`, and `config`, which
gives the configuration's two Structs under the name that users know.
"""
