"""A notebook on several processes, of one machine or of many.

    torchrun --nproc-per-node 4 -m lib.lab.many NOTEBOOK OUT -f PRESET

takes what papermill takes after NOTEBOOK and OUT; of several machines each
gets torchrun's `--nnodes` and `--rdzv-endpoint`, and they share the project's
folder. Every process runs all cells; batches are shared out, gradients are
averaged, and the first process alone writes OUT, the registry's lines and
the checkpoints. OUT is there when the notebook has ended, well or with an
error in a cell, and not before. If a process dies, torchrun ends the others.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from papermill import PapermillExecutionError
from papermill.cli import papermill

ENDED = 143  # how a process ends that torchrun ends, since another died
# Seconds that the first process has to write OUT, where all fail at once.
LATER = 5


def main(arguments: list[str]) -> None:
    """Run papermill, and put what the first process wrote into its place."""
    if len(arguments) < 2 or any(x.startswith("-") for x in arguments[:2]):
        raise SystemExit(__doc__)
    notebook, out, *options = arguments
    rank = int(os.environ.get("RANK", 0))
    beside = None if rank else Path(out).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".many-", dir=beside) as folder:
        written, whole = Path(folder) / "out.ipynb", False
        try:
            papermill([notebook, str(written), *options],
                      standalone_mode=False)
            whole = True
        except PapermillExecutionError as error:
            whole = True  # with the cell that failed, marked
            if rank:
                time.sleep(LATER)
            raise SystemExit(f"process {rank}: {error}") from error
        except SystemExit as end:
            if end.code == ENDED:
                raise
            raise SystemExit(f"process {rank}: its kernel died, as when "
                             "memory runs out") from end
        finally:
            if whole and not rank and written.exists():
                os.replace(written, out)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    main(sys.argv[1:])
