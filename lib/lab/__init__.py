"""Training, studies over rows and seeds, the registry of runs."""
