"""The five papers' models and losses: torch and einops alone."""
