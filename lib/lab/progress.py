"""A bar while runs are trained, of which nothing is stored."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.notebook import tqdm as tqdm_notebook


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar of `total` steps; call what it gives with a line at each one.

    In JupyterLab it is a widget that goes when all is done; under papermill
    and scripts it is drawn in the terminal; elsewhere there is none. A
    notebook's stored output never holds it.
    """
    bar = _bar(total)
    done = False

    def say(text: str) -> None:
        nonlocal done
        bar.update(done)
        done = True
        bar.set_description(text)

    try:
        yield say
        bar.update(done)
    finally:
        bar.close()


def _bar(total: int) -> tqdm:
    if "JPY_SESSION_NAME" in os.environ:
        return tqdm_notebook(total=total, leave=False)
    # a kernel's own stderr goes into the notebook; its terminal is behind
    handle = getattr(sys.stderr, "_original_stdstream_copy", None)
    if handle is None or not os.isatty(handle):
        return tqdm(total=total, disable=None, leave=False)
    terminal = os.fdopen(os.dup(handle), "w")
    return tqdm(total=total, file=terminal, leave=False, dynamic_ncols=True)
