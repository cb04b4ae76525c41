"""What a query of PromQL uses: metrics with their labels, by Prometheus' own grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import promql_parser

_VARIABLES: Mapping[str, str] = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}
"""Variables of the dashboard, and what Grafana may put in their place."""
_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


def parse(query: str) -> promql_parser.Expr:
    """Parses a query; a ValueError names what is wrong."""
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, f"a variable that is not there: {query}"
    return promql_parser.parse(query)


def used(query: str) -> dict[str, set[str]]:
    """The names of metrics in a query as they are served, and the labels by which it selects, groups and joins them."""
    found = dict[str, set[str]]()
    _visit(parse(query), found)
    return found


def _visit(expr: Any, found: dict[str, set[str]]) -> None:
    inside = dict[str, set[str]]()
    match expr:
        case promql_parser.VectorSelector():
            assert expr.name, "a selector without the name of a metric"
            inside[expr.name] = {matcher.name for matcher in expr.matchers.matchers}
        case promql_parser.MatrixSelector():
            _visit(expr.vector_selector, inside)
        case promql_parser.Call():
            for argument in expr.args:
                _visit(argument, inside)
        case promql_parser.AggregateExpr():
            _visit(expr.expr, inside)
            assert expr.modifier is not None, "an aggregation without `by`"
            assert expr.modifier.type == promql_parser.AggModifierType.By
            for labels in inside.values():
                labels |= set(expr.modifier.labels)
        case promql_parser.BinaryExpr():
            _visit(expr.lhs, inside)
            _visit(expr.rhs, inside)
        case promql_parser.ParenExpr() | promql_parser.SubqueryExpr() | promql_parser.UnaryExpr():
            _visit(expr.expr, inside)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case _:
            raise AssertionError(f"what uses {type(expr).__name__}?")
    for name, labels in inside.items():
        found.setdefault(name, set()).update(labels)


def grouped(query: str) -> set[str]:
    """The labels that the series of a query's answer have, for legends and texts of alerts."""
    return _grouped(parse(query))


def _grouped(expr: Any) -> set[str]:
    match expr:
        case promql_parser.AggregateExpr():
            return set(expr.modifier.labels) if expr.modifier is not None else set()
        case promql_parser.BinaryExpr():
            return _grouped(expr.lhs) or _grouped(expr.rhs)
        case promql_parser.Call():
            return set[str]().union(*map(_grouped, expr.args)) - {"le"}
        case promql_parser.VectorSelector():
            # Prometheus gives these to whatever it reads.
            return {"job", "instance", *(matcher.name for matcher in expr.matchers.matchers)}
        case promql_parser.ParenExpr():
            return _grouped(expr.expr)
        case _:
            return set()


def base(name: str) -> str:
    """The name of a metric that a series belongs to."""
    return _OF_HISTOGRAMS.sub("", name)
