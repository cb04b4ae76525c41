"""Python text in the making: lines, docstrings, and the imports that they turn out to need."""

from __future__ import annotations

from ._model import TypeRef
from ._names import Namespace
from ._values import TIMEDELTA

__all__ = ["PythonText"]

_IMPORTED = ("Awaitable", "Final", "Unpack", "abstractmethod", "deprecated", "timedelta")
_DEFINITIONS = ("class ", "def ", "@")


class PythonText:
    """The body of a module; whatever it refers to by `type`, `module` or `literal` is imported, and nothing else.

    Imported names begin with an underscore, which no generated name does, so that they can never meet.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._modules: dict[str, str] = {}
        self._aliases = Namespace({"_t", *(f"_{name}" for name in _IMPORTED)})
        self._names: dict[tuple[str, str], str] = {}

    def line(self, text: str = "", indent: int = 0) -> None:
        """Adds a line; without text, an empty one."""
        self._lines.append(f"{'    ' * indent}{text}" if text else "")

    def docstring(self, text: str, indent: int = 0) -> None:
        """Adds a docstring; an empty text adds none."""
        if not text:
            return
        lines = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').split("\n")
        if len(lines) == 1 and not lines[0].endswith('"'):
            self.line(f'"""{lines[0]}"""', indent)
            return
        # One entry, so that the empty lines within it stay as they are.
        pad = "    " * indent
        body = [f"{pad}{line}" if line else "" for line in lines[1:]]
        self._lines.append("\n".join([f'{pad}"""{lines[0]}', *body, f'{pad}"""']))

    def type(self, reference: TypeRef | None) -> str:
        """A dataclass as an annotation or value; None for google.protobuf.Empty."""
        return "None" if reference is None else f"{self.module(reference.module)}.{reference.name}"

    def module(self, name: str) -> str:
        """The name that a module is imported under."""
        if name not in self._modules:
            parts = name.split(".")
            self._modules[name] = self._aliases.take(
                *(f"_{'__'.join(parts[start:])}" for start in range(len(parts) - 1, -1, -1))
            )
        return self._modules[name]

    def imported(self, module: str, name: str) -> str:
        """The name that something of a module is imported under."""
        return self._names.setdefault((module, name), f"_{name}")

    def literal(self, text: str) -> str:
        """An option's value, as `_values` has it."""
        return text.replace(TIMEDELTA, self.imported("datetime", "timedelta")) if TIMEDELTA in text else text

    def imports(self) -> list[str]:
        """Import statements, sorted, the standard library's first."""
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self._names):
            by_module.setdefault(module, []).append(f"{name} as _{name}")
        own = [f"import {module} as {alias}" for module, alias in sorted(self._modules.items())]
        standard = [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]
        return [*standard, "", *own, "from python_temporal import codegen as _t"] if standard else own

    def render(self) -> list[str]:
        """The lines so far, with two empty ones around each class and function and never more."""
        lines, empty = list[str](), 0
        previous = ""
        for line in self._lines:
            if not line:
                empty += 1
                continue
            is_top_level = not line.startswith((" ", ")", '"""'))
            if empty and is_top_level and (line.startswith(_DEFINITIONS) or previous.startswith(" ")):
                empty = 2
            lines += [""] * min(empty, 2 if is_top_level else 1)
            lines.append(line)
            previous, empty = line, 0
        return lines
