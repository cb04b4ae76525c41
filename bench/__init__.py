"""Benchmarks: `python -m bench [NAME ...]`, or `make bench` for all of them.

A benchmark is a module of this package, with a name that does not begin with an underscore, that has a function
`run(options: Options) -> Result`. The first line of its docstring says what it measures. It measures peers in the same
run, round after round with each of them in turn, so that whatever else the machine is doing meets all of them alike.
"""
