"""Which variables a cell reads: those it needs from the notebook, and no others."""

import ast
import textwrap

import pytest

from omniq_nb.codec.captured import globals_read
from omniq_nb.notebook.reads import names_read


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("x = data\nx + y", "data y"),
        ("x += 1", "x"),
        ("x = 1\nx += 1", ""),
        ("import numpy as np, os.path\nnp.zeros(n); os", "n"),
        ("from math import *\nsqrt(2)", "sqrt"),
        ("del x", "x"),
        ("a.b.c = d[e]", "a d e"),
        ("x: int = y", "int y"),
        ("print(f'{x!r:{width}}')", "print width x"),
        ("(y := f(x)) + y", "f x"),
        # comprehensions and functions have scopes of their own
        ("[i * k for i in rows if i > low]", "k low rows"),
        ("{k: v for k, v in pairs}", "pairs"),
        ("total = 0\nsum(i + total for i in rows)", "rows sum"),
        ("f = lambda a, b=c: a + b + d", "c d"),
        ("def f(a, *b, **c):\n    z = a\n    return z + outside", "outside"),
        ("def f():\n    def g():\n        return deep\n    return g", "deep"),
        ("@wrap\ndef f(a: kind = default) -> other: ...", "default kind other wrap"),
        (
            "class A(Base):\n    x = first\n    y = x\n    def f(self): return late",
            "Base first late",
        ),
        ("def f():\n    global x\n    x = 1\nf()\nx", "x"),
        # a function runs later, when the cell has set what it needs
        ("def f(): return g()\ndef g(): return 1\nf()", ""),
        ("def f(): return limit\nif c: limit = 1\nf()", "c limit"),
        # what is only set sometimes may have to come from the notebook
        ("if c:\n    x = 1\nx", "c x"),
        ("if c:\n    x = 1\nelse:\n    x = 2\nx", "c"),
        ("if c:\n    x = 1\nelse:\n    raise Wrong\nx", "Wrong c"),
        ("for i in rows:\n    y = i\n    y\nelse:\n    z\ny", "rows y z"),
        ("for a.b in rows: pass", "a rows"),
        ("while c:\n    if d: break\n    x = 1\nx", "c d x"),
        ("with open(p) as file, lock:\n    text = file.read()\ntext", "lock open p"),
        ("try:\n    x = f()\nexcept Wrong as error:\n    error; y = 1\nx", "Wrong f x"),
        ("try:\n    import fast as m\nexcept ImportError:\n    import slow as m\nm", "ImportError"),
        ("try:\n    pass\nfinally:\n    x = 1\nx", ""),
        ("try:\n    f()\nexcept* Wrong:\n    pass", "Wrong f"),
        ("match point:\n    case Red.x: pass\n    case [a, *b] if a: a + b + z", "Red point z"),
        ("match point:\n    case {'k': v, **rest}: v, rest\n    case other: other", "point"),
        # awaiting at the top, as notebooks allow
        ("x = await get(y)\nasync for i in x: i\nasync with x as z: z", "get y"),
    ],
)
def test_a_cell_reads(cell, names):
    assert " ".join(sorted(names_read(ast.parse(cell)))) == names


def test_a_function_reads_what_the_functions_within_it_read():
    scope = {}
    source = """
        def f(a):
            import os
            return [g(a, b) for b in rows], lambda: os.sep + sep, a.attribute
    """
    exec(textwrap.dedent(source), scope)
    assert globals_read(scope["f"]) == {"g", "rows", "sep"}
