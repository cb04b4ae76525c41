"""The modules that a process runs: `registry.py` is what each brings, checked; `discovery.py` is how they are found."""
