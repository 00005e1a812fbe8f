"""The engine: submitting, waiting, workers, executors, schedules. Everything but the stores.

It knows the interfaces of `omniq_nb.storage.base`, never a family of stores; the factory joins
the two. The blocking face is `omniq_nb.sync`. Import from the modules: this one loads nothing.
"""
