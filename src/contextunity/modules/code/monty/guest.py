"""Generate the source that runs inside Monty around a program, and communicates with the worker.

A program's values are never converted to objects in the worker: a list of two million numbers takes a quarter of a
gigabyte there, before its size could be checked. So a value is encoded as JSON inside, under the program's own limits,
and printed as text between two marks. A program that forges such a message gains nothing: it could return the same as
its result or by a call.

The last expression of a program is found by its tokens, because parsing hostile source is safe only in a sandbox.
"""

from __future__ import annotations

import io
import keyword
import token
import tokenize

from process_jail import EXACT_INTEGERS, MAX_DEPTH

__all__ = ["CALL_HOOK", "LAST", "MARK", "keep_last_expression", "report_source", "simple_report_source", "tools_source"]

MARK = "\x00cw\x00"
"""Mark before and after a message."""
CALL_HOOK = "__cw_call"
"""Function that the worker answers: the message printed before it is a tool call."""
LAST = "__cw_last"
"""Variable with the value of the last expression."""

_NO_EXPRESSION = frozenset(keyword.kwlist) - {"None", "True", "False", "not", "lambda", "await"} | {"@"}
_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**="})
_PASSED_OVER = frozenset({token.COMMENT, tokenize.NL, token.ENDMARKER})

_Tokens = list[tokenize.TokenInfo]

_CARRY = f"""
def __cw_send(text):
    print({MARK!r}, text, {MARK!r}, sep='', end='')

def __cw_json(value, limit, where):
    import json
    left = [limit]
    ways = {{
        'set': 'use sorted(…) or list(…)', 'frozenset': 'use sorted(…) or list(…)',
        'bytes': 'decode it, or use base64', 'Decimal': 'use float(…) or str(…)',
        'datetime': 'use .isoformat()', 'date': 'use .isoformat()', 'timedelta': 'use .total_seconds()',
        'range': 'use list(…)', 'map': 'use list(…)', 'filter': 'use list(…)', 'zip': 'use list(…)',
        'generator': 'use list(…)', 'dict_keys': 'use list(…)', 'dict_values': 'use list(…)',
        'dict_items': 'use dict(…)',
    }}

    path = [where]

    def wrong(text):
        raise ValueError(''.join(path)[:200] + ' ' + text)

    def take(size):
        left[0] = left[0] - size
        if left[0] < 0:
            raise ValueError(where + ' takes more than the limit of ' + f'{{limit:,}}' + ' bytes')

    def walk(item):
        take(1)
        kind = type(item)
        if item is None:
            return 'null'
        if kind is bool:
            return 'true' if item else 'false'
        if kind is str:
            take(len(item))
            return json.dumps(item, ensure_ascii=False)
        if kind is int:
            if item > {EXACT_INTEGERS} or item < -{EXACT_INTEGERS}:
                wrong('is an integer beyond 2^53, which JSON cannot represent exactly; use str(…)')
            return str(item)
        if kind is float:
            if item != item or item in (float('inf'), float('-inf')):
                wrong('is ' + str(item) + ', which JSON does not have; use None or text')
            return repr(item)
        if kind is list or kind is tuple or kind is dict:
            if len(path) > {MAX_DEPTH}:
                wrong('is nested more than {MAX_DEPTH} deep, or part of itself')
            parts = []
            path.append('')
            if kind is dict:
                for key, inner in item.items():
                    if type(key) is not str:
                        path.pop()
                        wrong('has a key of type ' + type(key).__name__ + '; keys must be text, such as str(key)')
                    take(len(key))
                    path[-1] = '[' + repr(key[:40]) + ']'
                    parts.append(json.dumps(key, ensure_ascii=False) + ':' + walk(inner))
                path.pop()
                return '{{' + ','.join(parts) + '}}'
            index = 0
            for inner in item:
                path[-1] = '[' + str(index) + ']'
                parts.append(walk(inner))
                index = index + 1
            path.pop()
            return '[' + ','.join(parts) + ']'
        name = kind.__name__
        wrong('is of type ' + name + ', which JSON cannot represent; '
              + ways.get(name, 'make it of None, bool, int, float, str, list and dict'))

    return walk(value)
"""

_SIMPLE = """
def __cw_simple():
    try:
        value = result
    except NameError:
        try:
            value = {last}
        except NameError:
            return '{{}}'
    kind = type(value)
    if value is None:
        return '{{"value":null}}'
    if kind is bool:
        return '{{"value":true}}' if value else '{{"value":false}}'
    if kind is int and -{exact} <= value <= {exact}:
        return '{{"value":' + str(value) + '}}'
    return '{{"more":1}}'

print({mark!r}, __cw_simple(), {mark!r}, sep='', end='')
None
"""

_REPORT = """
def __cw_report():
    import json
    try:
        value = result
    except NameError:
        value = {last}
    try:
        text = __cw_json(value, {limit}, 'result')
    except ValueError as error:
        return __cw_send('{{"error":' + json.dumps(str(error)) + '}}')
    __cw_send('{{"value":' + text + '}}')

__cw_report()
None
"""

_TOOL = """
def {name}(*positional, **named):
    try:
        text = __cw_json([positional, named], {limit}, 'arguments')
    except ValueError as error:
        raise ValueError(str(error)) from None
    __cw_send('{{"tool":"{name}","arguments":' + text + '}}')
    return {hook}()
"""


def simple_report_source() -> str:
    """Return source that reports a simple result, fed after the program: much shorter, and enough for most programs.

    Its message is `{}` without a result, `{"value": …}`, or `{"more": 1}` if `report_source` must report it.
    """
    return _SIMPLE.format(last=LAST, mark=MARK, exact=EXACT_INTEGERS)


def report_source(result_bytes: int) -> str:
    """Return source that reports any result: `{"value": …}`, or `{"error": text}` if it is not valid JSON."""
    return _CARRY + _REPORT.format(last=LAST, limit=result_bytes)


def tools_source(names: tuple[str, ...], argument_bytes: int) -> str:
    """Return source that defines the tools, fed before the program.

    The message of a call is `{"tool": name, "arguments": [positional, named]}`. Arguments that are not valid JSON raise
    a ValueError in the program.
    """
    return _CARRY + "".join(_TOOL.format(name=name, limit=argument_bytes, hook=CALL_HOOK) for name in names) + "None\n"


def keep_last_expression(code: str, variable: str) -> str:
    """Assign the last expression of a program, if it ends with one, to a variable.

    Line numbers do not change. Source that cannot be tokenized is returned unchanged: the interpreter reports why.
    """
    try:
        line = _last_line(code)
    except (tokenize.TokenError, SyntaxError):
        return code
    if not line or line[0].string in _NO_EXPRESSION:
        return code
    statement = _last_statement(line)
    if not statement or statement[0].string in _NO_EXPRESSION or not _is_expression(statement):
        return code
    row, column = statement[0].start
    lines = io.StringIO(code).readlines()
    lines[row - 1] = f"{lines[row - 1][:column]}{variable} = {lines[row - 1][column:]}"
    return "".join(lines)


def _last_line(code: str) -> _Tokens:
    """Return the tokens of the last logical line; none if that is inside a block."""
    line, last, indent = _Tokens(), _Tokens(), 0
    for found in tokenize.generate_tokens(io.StringIO(code).readline):
        if found.type == token.INDENT:
            indent += 1
        elif found.type == token.DEDENT:
            indent -= 1
        elif found.type == token.NEWLINE:
            last, line = ([] if indent else line), []
        elif found.type not in _PASSED_OVER:
            line.append(found)
    return last


def _last_statement(line: _Tokens) -> _Tokens:
    """Return what follows the last semicolon that is followed by anything."""
    statement = _Tokens()
    for position, (found, depth) in enumerate(_with_depth(line)):
        if found.string == ";" and depth == 0:
            if position < len(line) - 1:
                statement = []
        else:
            statement.append(found)
    return statement


def _is_expression(statement: _Tokens) -> bool:
    """Return whether nothing is assigned or annotated, and no block begins: `match x:` and `x: int` have a colon."""
    lambdas = 0
    for found, depth in _with_depth(statement):
        if depth:
            continue
        if found.type == token.NAME and found.string == "lambda":
            lambdas += 1
        elif found.type != token.OP:
            continue
        elif found.string == ":" and lambdas:
            lambdas -= 1
        elif found.string == ":" or (found.string in _ASSIGNMENTS and not lambdas):
            return False
    # `type X = int` is an assignment too; `print x` is a syntax error anyway.
    return True


def _with_depth(tokens: _Tokens) -> list[tuple[tokenize.TokenInfo, int]]:
    """Pair each token with the number of open brackets around it."""
    depth = 0
    result = list[tuple[tokenize.TokenInfo, int]]()
    for found in tokens:
        opens = found.type == token.OP and found.string in ("(", "[", "{")
        depth -= found.type == token.OP and found.string in (")", "]", "}")
        result.append((found, depth))
        depth += opens
    return result
