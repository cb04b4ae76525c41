"""The modules of a process: `registry.py` checks what each provides, `discovery.py` finds them."""
