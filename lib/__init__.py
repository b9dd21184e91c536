"""Pieces of five papers on spatio-temporal attention, each file copyable.

Conventions, stated once for the whole repository:

- A batch of videos is ``(B, T, C, H, W)``, one video ``(T, C, H, W)``, RGB.
  Data sets hold uint8; models take float in [0, 1], and each backbone owns
  the mean and the standard deviation that it expects.
- Flow is ``(T-1, 2, H, W)`` in pixels per frame, x first: entry ``t`` carries
  frame ``t`` onto frame ``t + 1``.
- Boxes are ``x1 y1 x2 y2`` in pixels; ``x2`` and ``y2`` are the exclusive
  edges. A frame without a box holds NaN.
- Times are seconds, segments are ``[start, end)``.
- A sample is a dict: ``video``, ``label``, ``name``, ``group``, ``fps``, and
  where the data has them ``mask`` (T, H, W), ``boxes`` (T, 4), ``joints``
  (T, J, 2), ``segments`` (K, 2), ``relevant`` (T,), ``flow``; and ``motion``
  (T, 2L, H, W), the L flow fields that start at each sampled frame, or
  ``warped``, the same without the camera's motion. A buffer of a long video
  has ``actions`` and ``ambiguous`` instead of a label (``data/untrimmed.py``).
- A paper's model returns a NamedTuple with ``logits`` (B, K), those of
  ``where`` (B, T', H', W'), ``when`` (B, T') and ``what`` (B, C) that the
  paper has, and ``spans`` (T', 2): the input frames ``[start, end)`` that each
  of the T' steps covers.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's root; relative paths count from here."""
