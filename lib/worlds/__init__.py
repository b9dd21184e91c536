"""The built-in videos, drawn with all their true answers."""
