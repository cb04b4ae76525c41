"""The buf plugin `protoc-gen-python_temporal`: typed Temporal workflows, activities and clients from annotated protos.

It works in three steps: `_schema` reads the descriptors of the request, `_build` makes the model of `_model` and checks
it, and `_print_contract`, `_print_classes` and `_reference` print it. Generated code needs the runtime
`python_temporal` and betterproto2's dataclasses; the plugin itself imports neither.
"""

from ._main import generate, main

__all__ = ["generate", "main"]
