"""The buf plugin `protoc-gen-python_temporal`: typed Temporal workflows, activities and clients from annotated protos.

It works in three steps: `_source` reads the descriptors of the request, `_build` makes the plain model of `_model` from
them and checks it, and `_print_module` and `_reference` write the model down. Generated code stands on the runtime
`python_temporal` and on betterproto2's dataclasses; the plugin itself imports neither.
"""

from ._main import generate, main

__all__ = ["generate", "main"]
