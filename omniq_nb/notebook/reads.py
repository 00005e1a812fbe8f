"""Which variables a cell's code reads.

The compiler resolves the scopes; only the order of a cell's statements is followed here, since
what a cell surely sets before it reads it need not come from anywhere.

Not here: what functions read (`omniq_nb.codec.captured`), and what becomes of these names
(`omniq_nb.notebook.travel`).
"""

import ast
import dis
import inspect
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import cast

from omniq_nb.codec.captured import LOADS, names_loaded, of_any_module

_INLINE = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})

Bound = frozenset[str] | None
"""Names that are surely set; None where the code never gets to."""


def names_read(tree: ast.Module) -> set[str]:
    r"""The names that a cell's code may read without having set them.

    Parameters
    ----------
    tree : ast.Module
        The cell.

    Examples
    --------
    >>> source = "import math\nfor x in data: total = math.sqrt(x) + offset"
    >>> sorted(names_read(ast.parse(source)))
    ['data', 'offset']
    """
    reading = _Reading()
    end = reading.block(tree.body, frozenset())
    # A function's body is run later, when the cell may have set what it needs.
    return reading.now | (reading.later - (end or frozenset()))


class _Reading:
    """Follows statements in their order, and notes what they read."""

    def __init__(self) -> None:
        self.now: set[str] = set()
        self.later: set[str] = set()

    def block(self, statements: Sequence[ast.stmt], bound: Bound) -> Bound:
        for statement in statements:
            bound = self._statement(statement, bound)
        return bound

    def _statement(self, node: ast.stmt, bound: Bound) -> Bound:
        match node:
            case ast.If(test, body, orelse):
                bound = self._expression(test, bound)
                return _either(self.block(body, bound), self.block(orelse, bound))
            case ast.For(target, iterable, body, orelse) | ast.AsyncFor(
                target, iterable, body, orelse
            ):
                bound = self._expression(iterable, bound)
                self.block(body, self._target(target, bound))
                self.block(orelse, bound)
            case ast.While(test, body, orelse):
                bound = self._expression(test, bound)
                self.block(body, bound)
                self.block(orelse, bound)
            case ast.With(items, body) | ast.AsyncWith(items, body):
                for item in items:
                    bound = self._expression(item.context_expr, bound)
                    if item.optional_vars is not None:
                        bound = self._target(item.optional_vars, bound)
                return self.block(body, bound)
            case ast.Try(body, handlers, orelse, final) | ast.TryStar(
                body, handlers, orelse, final
            ):
                ends = [self.block(orelse, self.block(body, bound))]
                for handler in handlers:
                    caught = (
                        bound if handler.type is None else self._expression(handler.type, bound)
                    )
                    ends.append(self.block(handler.body, _with(caught, [handler.name])))
                return _with(_either(*ends), self.block(final, bound) or ())
            case ast.Match(subject, cases):
                bound = self._expression(subject, bound)
                for case in cases:
                    captured = _with(bound, _captured(case.pattern))
                    self._note(case.pattern, bound)
                    if case.guard is not None:
                        captured = self._expression(case.guard, captured)
                    self.block(case.body, captured)
            case ast.Raise() | ast.Break() | ast.Continue():
                if isinstance(node, ast.Raise):
                    self._leaf(node, bound)
                return None
            case _:
                return self._leaf(node, bound)
        return bound

    def _expression(self, node: ast.expr, bound: Bound) -> Bound:
        return self._leaf(ast.Expr(node), bound)

    def _target(self, node: ast.expr, bound: Bound) -> Bound:
        """What `for` and `with` set: names, or parts of things, which are read for that."""
        self._note(node, bound)
        return _with(bound, _stored(node))

    def _note(self, node: ast.AST, bound: Bound) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
                self._read(part.id, bound)

    def _leaf(self, node: ast.stmt, bound: Bound) -> Bound:
        """A statement without blocks, or one whose block is a scope of its own."""
        return self._code(_compiled(node), bound)

    def _code(self, code: CodeType, bound: Bound) -> Bound:
        for step in dis.get_instructions(code):
            if step.opname in LOADS:
                self._read(str(step.argval), bound)
            elif step.opname == "STORE_NAME":
                bound = _with(bound, [str(step.argval)])
            elif isinstance(part := step.argval, CodeType):
                if part.co_name in _INLINE:
                    for name in names_loaded(part):
                        self._read(name, bound)
                elif not part.co_flags & inspect.CO_OPTIMIZED:
                    self._code(part, bound)  # a class
                else:
                    self.later.update(names_loaded(part))
        return bound

    def _read(self, name: str, bound: Bound) -> None:
        if bound is not None and name not in bound and not of_any_module(name):
            self.now.add(name)


def _compiled(node: ast.stmt) -> CodeType:
    tree = ast.fix_missing_locations(ast.Module([node], []))
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return cast(CodeType, compile(tree, "<cell>", "exec", flags, dont_inherit=True))


def _either(*ends: Bound) -> Bound:
    reached = [end for end in ends if end is not None]
    return frozenset.intersection(*reached) if reached else None


def _with(bound: Bound, names: Iterable[str | None]) -> Bound:
    return None if bound is None else bound.union(name for name in names if name is not None)


def _stored(target: ast.expr) -> Iterator[str]:
    for part in ast.walk(target):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id


def _captured(pattern: ast.pattern) -> Iterator[str]:
    for part in ast.walk(pattern):
        if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name is not None:
            yield part.name
        elif isinstance(part, ast.MatchMapping) and part.rest is not None:
            yield part.rest
