"""One thread per worker, and the CPU alone: what was recorded comes from it.

Two workers that each spin two threads are slower. And the number of threads
changes the order of sums, which training carries on, to other accuracies by
points: so the refresh command uses one thread too. The file lies here and not
in tests/ so that a call for a notebook alone reads it as well; its kernel, a
process of its own, inherits the environment.
"""

import os
import warnings
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent / "tests" / "benchmarks"

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
# Jupyter asks for this once, to silence a notice about where it keeps files.
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

# torch probes for CUDA when it is first asked; without a driver it warns.
warnings.filterwarnings("ignore", message="CUDA initialization")


def pytest_configure(config):
    """Hide the GPU, unless benchmarks alone are asked for.

    Before any test file is imported: CUDA reads the variable but once.
    """
    asked = [config.invocation_params.dir / arg.split("::")[0]
             for arg in config.args]
    if not all(path.resolve().is_relative_to(BENCHMARKS) for path in asked):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
