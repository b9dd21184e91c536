"""One thread per worker: two workers that each spin two threads are slower.

Their number changes the order of sums on the CPU, and training carries that
on: other threads, other accuracies, by points. So the refresh command uses one
thread too. The file lies here and not in tests/ so that a call for a notebook
alone reads it as well.
"""

import os
import warnings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Jupyter asks for this once, to silence a notice about where it keeps files.
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

# torch probes for CUDA when it is first asked; without a driver it warns.
warnings.filterwarnings("ignore", message="CUDA initialization")
