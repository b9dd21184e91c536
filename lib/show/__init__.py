"""Figures, drawings, the explorer, and source code in notebooks."""
