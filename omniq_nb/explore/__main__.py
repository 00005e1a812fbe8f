"""Prints the page docs/tables.md."""

from omniq_nb.explore.views import markdown

print(markdown(), end="")  # noqa: T201
