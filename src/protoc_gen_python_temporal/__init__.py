"""The buf plugin `protoc-gen-python_temporal`: typed Temporal workflows, activities and clients from annotated protos.

It works in three steps: `schema` reads the descriptors of the request, `build` makes the model of `model` and checks
it, and `print_contract`, `print_classes` and `print_reference` print it. Generated code needs the runtime
`python_temporal` and betterproto2's dataclasses; the plugin itself imports neither.
"""

from .plugin import generate, main

__all__ = ["generate", "main"]
