"""Source code of `lib` in notebooks."""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

from lib import ROOT


def show(thing: Callable) -> Markdown:
    """The source of a function or class of `lib`, highlighted.

    The text changes when the code does, and only then: nbval fails on a
    notebook that was not refreshed after its `lib` file changed.
    """
    source = textwrap.dedent(inspect.getsource(thing)).rstrip()
    file = Path(inspect.getsourcefile(thing)).resolve()  # lib may be a link
    path = file.relative_to(ROOT).as_posix()
    return Markdown(f"[`{path}`](../{path})\n\n```python\n{source}\n```")
