"""Finds the last expression of a program without parsing it, which for hostile source is safe only in a sandbox."""

from __future__ import annotations

import io
import keyword
import token
import tokenize

__all__ = ["keep_last_expression"]

_NO_EXPRESSION = frozenset(keyword.kwlist) - {"None", "True", "False", "not", "lambda", "await"} | {"@"}
_ASSIGNMENTS = frozenset({"=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**="})
_PASSED_OVER = frozenset({token.COMMENT, tokenize.NL, token.ENDMARKER})

_Tokens = list[tokenize.TokenInfo]


def keep_last_expression(code: str, variable: str) -> str:
    """Returns the program with its last expression, where it ends with one, assigned to a variable.

    Lines stay where they are. Source that cannot be read as tokens is returned as it is: the interpreter says why.
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
    """Tokens of the last logical line; none where that is inside a block."""
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
    """What stands behind the last semicolon that something stands behind."""
    statement = _Tokens()
    for position, (found, depth) in enumerate(_with_depth(line)):
        if found.string == ";" and depth == 0:
            if position < len(line) - 1:
                statement = []
        else:
            statement.append(found)
    return statement


def _is_expression(statement: _Tokens) -> bool:
    """Whether nothing is assigned or annotated, and no block begins: `match x:` has a colon as `x: int` has."""
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
    # `type X = int` is an assignment as well; `print x` is refused either way.
    return True


def _with_depth(tokens: _Tokens) -> list[tuple[tokenize.TokenInfo, int]]:
    """Each token with the number of brackets that are open around it."""
    depth = 0
    result = list[tuple[tokenize.TokenInfo, int]]()
    for found in tokens:
        opens = found.type == token.OP and found.string in ("(", "[", "{")
        depth -= found.type == token.OP and found.string in (")", "]", "}")
        result.append((found, depth))
        depth += opens
    return result
