"""The parts of the worker that module authors register with."""
