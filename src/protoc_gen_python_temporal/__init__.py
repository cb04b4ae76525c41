"""The buf plugin `protoc-gen-python_temporal`: generates typed Temporal workflows, activities and clients.

It works in three steps: `schema` decodes the descriptors of the request, `build` makes and checks the model in `model`,
and `print_contract`, `print_classes` and `print_reference` print it. Generated code needs the runtime
`python_temporal` and betterproto2's dataclasses; the plugin itself imports neither.
"""

from .plugin import generate, main

__all__ = ["generate", "main"]
