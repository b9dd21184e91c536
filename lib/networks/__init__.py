"""Networks for frames and for clips, and published weights."""
