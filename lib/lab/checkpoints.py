"""The whole state of a training run on disk: all of it, or none of it."""

import hashlib
import json
import os
import shutil
import weakref
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lib import ROOT
from lib.lab import processes


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or another run's, or one is being trained."""


class _Lock:
    """A folder is this process's, until its last Checkpoint has gone.

    The system releases it when the process ends, however it ends. Not flock,
    which processes that were forked, as loaders of batches, would keep.
    """

    def __init__(self, folder: Path):
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab")
        weakref.finalize(self, file.close)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise CheckpointError(
                f"{folder}: another process trains this very run: wait until "
                "it ends, stop it, or train with other settings") from error
        except OSError:
            pass  # a file system without locks


_LOCKS: weakref.WeakValueDictionary[Path, _Lock] = (
    weakref.WeakValueDictionary())


class Checkpoint:
    """Folders `step-00000200`, of which the newest is always complete.

    A new one is written beside, sealed with the digests of its files and
    renamed; only then is the older one removed. Two runs cannot have the
    same folder at once: CheckpointError. Of several processes of one run the
    first writes, and all read; another time they may be more, or fewer.
    """

    def __init__(self, folder: str | Path, accelerator, settings: dict):
        self.folder = ROOT / folder
        self._first = processes.ranks()[0] == 0
        if self._first:
            # shared in a process: a notebook may still hold a run that failed
            self._lock = _LOCKS.get(self.folder) or _Lock(self.folder)
            _LOCKS[self.folder] = self._lock
        self.accelerator = accelerator
        # of a function, as a schedule is one, its values: JSON knows none
        self.settings = {
            key: [value(i / 100) for i in range(100)] if callable(value)
            else value for key, value in settings.items()}

    def save(self, history: list[dict], best: tuple | None) -> None:
        """Write the state after the last step of `history`.

        best: the best validation score and its weights, if there is one.
        """
        if not self._first:
            return
        name = f"step-{len(history):08d}"
        beside = self.folder / f"{name}.part"
        old = list(self.folder.glob("step-*"))
        shutil.rmtree(beside, ignore_errors=True)
        self.accelerator.save_state(str(beside))
        if best is not None:
            save_file(best[1], beside / "best.safetensors")
        state = {"settings": self.settings, "history": history,
                 "best": best and best[0], "random": _random_digest(),
                 "files": {path.name: _seal(path)
                           for path in sorted(beside.iterdir())}}
        (beside / "state.json").write_text(json.dumps(state))
        _seal(beside / "state.json")
        os.replace(beside, self.folder / name)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> tuple[list[dict], tuple | None]:
        """Restore the newest state; return its `history` and `best`.

        An empty folder gives an empty history. A state that is damaged or
        another run's raises CheckpointError, before anything is restored.
        """
        done = [self.folder / name for name in processes.first(sorted(
            path.name for path in self.folder.glob("step-*")
            if path.suffix != ".part"))]
        if not done:
            return [], None
        mend = f"; remove {self.folder} to train from the start"
        try:
            state = json.loads((done[-1] / "state.json").read_text())
            for name, digest in state["files"].items():
                if _seal(done[-1] / name) != digest:
                    raise ValueError(f"{name} is not as it was written")
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{done[-1]} is damaged: {error}{mend}") from error
        if state["settings"] != self.settings:
            other = [f"{key} {state['settings'].get(key)} there, {value} here"
                     for key, value in self.settings.items()
                     if state["settings"].get(key) != value]
            raise CheckpointError(
                f"{done[-1]} is another run's: {', '.join(other)}{mend}")
        from accelerate.utils.other import load

        # safetensors for the weights, torch.load(weights_only=True) for the
        # rest; a random state that does not load, Accelerate only logs
        self.accelerator.load_state(str(done[-1]))
        if not self._first:  # it looks for a file of each process
            states = load(done[-1] / "random_states_0.pkl")
            torch.set_rng_state(states["torch_manual_seed"])
            if "torch_cuda_manual_seed" in states:
                torch.cuda.set_rng_state(states["torch_cuda_manual_seed"][0])
        if _random_digest() != state["random"]:
            raise CheckpointError(
                f"{done[-1]}: the random state does not load{mend}")
        if state["best"] is None:
            return state["history"], None
        best = load_file(done[-1] / "best.safetensors")
        return state["history"], (state["best"], best)


def _seal(path: Path) -> str:
    """The digest of a file whose bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _random_digest() -> str:
    return hashlib.sha256(torch.get_rng_state().numpy()).hexdigest()
