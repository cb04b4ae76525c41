"""Compare what inputs accept and outputs may hold: all messages reachable from the methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .accepted import NO_EXPRESSIONS, Change, Expressions, expressions, matches_all
from .findings import Breaks, Findings
from .narrowing import absence_refused, held_message, held_rules, narrowed, side_of, value_text
from .schema import KINDS, Schema, is_map
from .temporal import Pairs

__all__ = ["compare_inputs"]

_INPUT_RULES = {
    "required": "INPUT_FIELD_REQUIRED",
    "range": "INPUT_RANGE_NARROWED",
    "values": "INPUT_VALUES_NARROWED",
    "length": "INPUT_LENGTH_NARROWED",
    "format": "INPUT_FORMAT_NARROWED",
    "size": "INPUT_SIZE_NARROWED",
    "oneof": "INPUT_ONEOF_NARROWED",
    "added": "INPUT_EXPRESSION_ADDED",
    "changed": "INPUT_EXPRESSION_CHANGED",
}
_SENDERS = {
    "workflow": (Breaks.CALLERS, Breaks.TASKS, Breaks.SCHEDULES),
    "activity": (Breaks.WORKERS, Breaks.TASKS),
    "query": (Breaks.CALLERS,),
    "signal": (Breaks.CALLERS, Breaks.TASKS),
    "update": (Breaks.CALLERS, Breaks.TASKS),
    "method": (Breaks.CALLERS,),
    "": (Breaks.CALLERS,),
}
"""Who sends an input, by the kind of its method. A running task sends it to its next run or a child."""
_OUTPUT_RULES = {**dict.fromkeys(_INPUT_RULES, "OUTPUT_WIDENED"), "changed": "OUTPUT_EXPRESSION_CHANGED"}


def compare_inputs(old: Schema, new: Schema, pairs: Pairs, findings: Findings) -> None:
    """Find inputs that accept less, outputs that may hold more, and fields that callers may no longer set."""
    inputs, outputs = _Reach(old, new), _Reach(old, new)
    for label, was, now in _methods(old, new, pairs):
        inputs.add(was.input_type, now.input_type, label)
        outputs.add(was.output_type, now.output_type, label)
    inputs.spread()
    outputs.spread()
    known = {pair.old.full_name for reach in (inputs, outputs) for pair in reach.pairs.values()}
    # Messages without a method travel in an Any or a payload, where their rules apply too.
    for name in _messages(old):
        if name not in known and name in new.declarations:
            inputs.add(name, name, "")
    inputs.spread()
    for pair in inputs.pairs.values():
        _PairComparison(old, new, pair, findings, is_input=True).run()
    for pair in outputs.pairs.values():
        _PairComparison(old, new, pair, findings, is_input=False).run()
    _compare_options(old, new, findings)


def _methods(old: Schema, new: Schema, pairs: Pairs) -> Iterator[tuple[str, Any, Any]]:
    """Yield label, old and new descriptor of each method in both versions, once per kind of the method."""
    services = {each.full_name: each for each in new.services}
    elements = {(each.kind, each.full_name): each for each in old.elements}
    for service in old.services:
        other = services.get(service.full_name)
        methods = {each.name: each for each in other.proto.method} if other is not None else {}
        for method in service.proto.method:
            full_name = f"{service.full_name}.{method.name}"
            found = [elements[kind, full_name] for kind in KINDS if (kind, full_name) in elements]
            for element in found:
                now = pairs.find(element.kind, full_name)
                if now is not None:
                    yield f"{element.kind} {element.name}", method, now.method
            if not found and method.name in methods:
                yield f"method {full_name}", method, methods[method.name]


def _messages(schema: Schema) -> Iterator[str]:
    def nested(protos: Any, scope: str) -> Iterator[str]:
        for message in protos:
            if not message.options.map_entry:
                name = f"{scope}.{message.name}" if scope else message.name
                yield name
                yield from nested(message.nested_type, name)

    for name, file in schema.files.items():
        if name not in schema.imported:
            yield from nested(file.message_type, file.package)


def _compare_options(old: Schema, new: Schema, findings: Findings) -> None:
    internal = "contextunity.worker.internal"
    for name, (_, _, proto) in old.declarations.items():
        now = new.declarations[name][2] if name in new.declarations else None
        if now is None or now.DESCRIPTOR.name != proto.DESCRIPTOR.name:
            continue
        if hasattr(now, "label") and new.option(now.options, internal) and not old.option(proto.options, internal):
            text = "internal false → true, so callers who set it are rejected"
            findings.add("FIELD_BECAME_INTERNAL", name, text, new.place_of(name), old.place_of(name))
        before, after = (
            schema.others(each.options, "contextunity.worker") for schema, each in ((old, proto), (new, now))
        )
        for option in sorted({*before, *after}):
            if before.get(option) != after.get(option):
                text = f"{option} {before.get(option, 'none')} → {after.get(option, 'none')}"
                findings.add("OPTION_CHANGED", name, text, new.place_of(name), old.place_of(name))


@dataclass(slots=True)
class _Pair:
    """A message that is reachable in both versions.

    Attributes:
        free: for the old and the new version, whether the message is not validated because a field on the path
            ignores its rules.
        labels: the methods that it is part of; an empty label for a message without a method.
        on_way: for each path, the expressions that the last field adds, in the old and the new version.
    """

    old: Descriptor
    new: Descriptor
    free: tuple[bool, bool]
    labels: list[str] = field(default_factory=list[str])
    on_way: list[tuple[Expressions, Expressions]] = field(default_factory=list[tuple[Expressions, Expressions]])

    def where(self, role: str) -> str:
        """Describe what the message is part of."""
        names = [label for label in self.labels if label]
        if not names:
            return "a message without a method"
        more = len(names) - 3
        return f"{role} of {', '.join(names[:3])}" + (f" and {more} more" if more > 0 else "")

    def breaks(self) -> tuple[Breaks, ...]:
        """Return who sends it."""
        senders = {each for label in self.labels for each in _SENDERS[label.partition(" ")[0]]}
        return tuple(each for each in Breaks if each in senders)


class _Reach:
    """Every message that is reachable from the inputs, or from the outputs, of methods."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self.pairs: dict[tuple[str, str, tuple[bool, bool]], _Pair] = {}
        self._pending = deque[tuple[_Pair, str]]()

    def add(self, old_type: str, new_type: str, label: str) -> None:
        """Add a root message."""
        nothing = (NO_EXPRESSIONS, NO_EXPRESSIONS)
        self._reach(self._old.message(old_type), self._new.message(new_type), (False, False), label, nothing)

    def spread(self) -> None:
        """Follow the fields of all added messages."""
        while self._pending:
            pair, label = self._pending.popleft()
            for was, now in _common_fields(pair.old, pair.new):
                before, after = held_message(was), held_message(now)
                if before is None or after is None:
                    continue
                rules = (_field_rules(self._old, was), _field_rules(self._new, now))
                free = (pair.free[0] or _skips(rules[0], was), pair.free[1] or _skips(rules[1], now))
                own = (expressions(held_rules(was, rules[0])), expressions(held_rules(now, rules[1])))
                self._reach(before, after, free, label, own)

    def _reach(
        self,
        old: Descriptor,
        new: Descriptor,
        free: tuple[bool, bool],
        label: str,
        on_way: tuple[Expressions, Expressions],
    ) -> None:
        key = (old.full_name, new.full_name, free)
        pair = self.pairs.setdefault(key, _Pair(old, new, free))
        pair.on_way.append(on_way)
        if label not in pair.labels:
            pair.labels.append(label)
            self._pending.append((pair, label))


def _common_fields(old: Descriptor, new: Descriptor) -> Iterator[tuple[FieldDescriptor, FieldDescriptor]]:
    numbered = {each.number: each for each in new.fields}
    for each in old.fields:
        if each.number in numbered:
            yield each, numbered[each.number]


def _field_rules(schema: Schema, each: FieldDescriptor) -> Any | None:
    found = schema.declarations.get(each.full_name)
    return schema.option(found[2].options, "buf.validate.field") if found is not None else None


def _skips(rules: Any | None, each: FieldDescriptor) -> bool:
    """Whether a field's rules turn off the validation of its message."""
    return rules is not None and held_rules(each, rules) is None


class _PairComparison:
    """Compare one message that is reachable in both versions."""

    def __init__(self, old: Schema, new: Schema, pair: _Pair, findings: Findings, *, is_input: bool) -> None:
        self._old, self._new, self._pair = old, new, pair
        self._findings = findings
        self._input = is_input
        self._rules = _INPUT_RULES if is_input else _OUTPUT_RULES
        self._breaks = pair.breaks() if is_input else None
        self._unproved = f"; that it accepts no {'less' if is_input else 'more'} cannot be proved"
        self._where = pair.where("input" if is_input else "output")
        self._zeroed = (_zeroed(old, pair.old), _zeroed(new, pair.new))

    def run(self) -> None:
        before_free, after_free = self._pair.free if self._input else (self._pair.free[1], self._pair.free[0])
        if after_free:
            return
        for was, now in _common_fields(self._pair.old, self._pair.new):
            if was.type == now.type and was.is_repeated == now.is_repeated:
                self._field(was, now, before_free=before_free)
        if self._input:
            numbered = {each.number for each in self._pair.old.fields}
            for each in self._pair.new.fields:
                if each.number not in numbered:
                    self._new_field(each)
        self._message(before_free=before_free)

    def _field(self, was: FieldDescriptor, now: FieldDescriptor, *, before_free: bool) -> None:
        rules = (_field_rules(self._old, was), _field_rules(self._new, now))
        old = side_of(was, rules[0], if_zero=was.name in self._zeroed[0])
        new = side_of(now, rules[1], if_zero=now.name in self._zeroed[1])
        before, after = (old, new) if self._input else (new, old)
        if before_free:
            before = side_of(before.field, None)
        changes = narrowed(before, after)
        if held_message(was) is not None:
            changes += self._on_field(was, now, before_free=before_free)
        for change in changes:
            places = self._new.place_of(now.full_name), self._old.place_of(was.full_name)
            told = "; ".join(
                f"{name} {value_text(rules[0], name)} → {value_text(rules[1], name)}" for name in change.options
            )
            text = f"{told}{self._unproved if change.kind == 'changed' else ''} ({self._where})"
            self._findings.add(self._rules[change.kind], was.full_name, text, *places, self._breaks)

    def _on_field(self, was: FieldDescriptor, now: FieldDescriptor, *, before_free: bool) -> list[Change]:
        """Compare the expressions on a message field; an expression that its message had before is not new."""
        rules = (_field_rules(self._old, was), _field_rules(self._new, now))
        own = (expressions(held_rules(was, rules[0])), expressions(held_rules(now, rules[1])))
        inner = (_inner(self._old, was), _inner(self._new, now))
        before, after = (0, 1) if self._input else (1, 0)
        held = NO_EXPRESSIONS if before_free else own[before] | inner[before]
        added, _ = held.compare(own[after])
        _, removed = own[before].compare(own[after] | inner[after])
        prefix = "" if not was.is_repeated else "map.values." if is_map(was) else "repeated.items."
        options = tuple(f"{prefix}{option}" for option in dict.fromkeys(added))
        return [Change("changed" if removed else "added", options)] if added else []

    def _new_field(self, each: FieldDescriptor) -> None:
        side = side_of(each, _field_rules(self._new, each), if_zero=each.name in self._zeroed[1])
        if side.rules is None:
            return
        place = self._new.place_of(each.full_name)
        # Senders that do not know the field omit it, so only its absence has to be accepted.
        refused = absence_refused(side)
        if refused:
            told = "; ".join(f"{name} {value_text(side.rules, name)}" for name in refused)
            text = f"new field, {told} ({self._where})"
            self._findings.add("INPUT_NEW_FIELD_REQUIRED", each.full_name, text, place, None, self._breaks)
            return
        found = expressions(side.rules)
        unsure = [
            option
            for text, option in found.texts.items()
            if not (text.startswith("pattern ") and matches_all(text.removeprefix("pattern "), [""]))
        ]
        if unsure and not side.tracked and not side.if_zero:
            text = f"new field; {', '.join(unsure)} may reject its absence ({self._where})"
            self._findings.add("INPUT_EXPRESSION_CHANGED", each.full_name, text, place, None, self._breaks)

    def _message(self, *, before_free: bool) -> None:
        rules = (_message_rules(self._old, self._pair.old), _message_rules(self._new, self._pair.new))
        before, after = (0, 1) if self._input else (1, 0)
        own = (expressions(rules[0]), expressions(rules[1]))
        held = NO_EXPRESSIONS if before_free else own[before] | _common([each[before] for each in self._pair.on_way])
        added, _ = held.compare(own[after])
        _, removed = own[before].compare(own[after] | _common([each[after] for each in self._pair.on_way]))
        if added:
            kind = "changed" if removed else "added"
            what = kind if self._input or removed else "removed"
            unproved = self._unproved if removed else ""
            self._add_message(kind, f"{', '.join(dict.fromkeys(added))} of the message {what}{unproved}")
        sides = ((self._old, self._pair.old), (self._new, self._pair.new))
        nothing = _Oneofs(required=frozenset(), single=frozenset())
        was, now = nothing if before_free else _oneofs(*sides[before]), _oneofs(*sides[after])
        known = {each.name for each in sides[before][1].fields}
        for names in sorted(map(sorted, was.lost_required(now))):
            self._add_message("oneof", f"one of {', '.join(names)} is {'now' if self._input else 'no longer'} required")
        for names in sorted(map(sorted, was.lost_single(now, known))):
            limit = "at most one" if self._input else "more than one"
            self._add_message("oneof", f"{limit} of {', '.join(names)} may be set now")

    def _add_message(self, kind: str, text: str) -> None:
        old, new = self._pair.old.full_name, self._pair.new.full_name
        places = self._new.place_of(new), self._old.place_of(old)
        self._findings.add(self._rules[kind], old, f"{text} ({self._where})", *places, self._breaks)


def _inner(schema: Schema, each: FieldDescriptor) -> Expressions:
    message = held_message(each)
    return expressions(_message_rules(schema, message)) if message is not None else NO_EXPRESSIONS


def _common(found: Sequence[Expressions]) -> Expressions:
    if not found:
        return NO_EXPRESSIONS
    return Expressions(
        {text: option for text, option in found[0].texts.items() if all(text in each.texts for each in found)}
    )


def _message_rules(schema: Schema, message: Descriptor) -> Any | None:
    found = schema.declarations.get(message.full_name)
    return schema.option(found[2].options, "buf.validate.message") if found is not None else None


def _zeroed(schema: Schema, message: Descriptor) -> set[str]:
    """Fields whose rules ignore zero, because they are in a `oneof` of the message's rules."""
    rules = _message_rules(schema, message)
    return {name for each in rules.oneof for name in each.fields} if rules is not None else set()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Oneofs:
    """Return the sets of fields of which one must be set, and those of which at most one may be set."""

    required: frozenset[frozenset[str]]
    single: frozenset[frozenset[str]]

    def lost_required(self, after: _Oneofs) -> list[frozenset[str]]:
        return [names for names in after.required if not any(each <= names for each in self.required)]

    def lost_single(self, after: _Oneofs, known: set[str]) -> list[frozenset[str]]:
        """Remove fields that are new: no sender sets them together with others."""
        narrow = [names & known for names in after.single]
        return [names for names in narrow if len(names) > 1 and not any(names <= each for each in self.single)]


def _oneofs(schema: Schema, message: Descriptor) -> _Oneofs:
    required, single = set[frozenset[str]](), set[frozenset[str]]()
    for oneof in message.oneofs:
        names = frozenset(each.name for each in oneof.fields)
        if len(names) == 1 and oneof.name.startswith("_"):
            continue  # It represents a field's `optional`.
        single.add(names)
        found = schema.declarations.get(oneof.full_name)
        rules = schema.option(found[2].options, "buf.validate.oneof") if found is not None else None
        if rules is not None and rules.required:
            required.add(names)
    rules = _message_rules(schema, message)
    for each in rules.oneof if rules is not None else ():
        single.add(frozenset(each.fields))
        if each.required:
            required.add(frozenset(each.fields))
    return _Oneofs(required=frozenset(required), single=frozenset(single))
