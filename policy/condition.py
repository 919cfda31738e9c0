"""Conditions such as `result.error_rate < 0.02 and result.accuracy >= 0.9`, without eval.

The language is what Argo Rollouts and Python share: numbers, `result.NAME`, + - * /, one
comparison at a time, and, or (also && and ||), not, parentheses. Both sides of a logical
word are truth values, never numbers. Python's parser makes the tree; only the nodes named
here are ever evaluated.
"""

import ast
import operator
import threading
from collections.abc import Callable, Mapping

FIELDS = (
    "requests",
    "errors",
    "error_rate",
    "latency_p95_s",
    "labels",
    "accuracy",
    "stable_requests",
    "stable_error_rate",
    "stable_latency_p95_s",
    "stable_accuracy",
)
_LENGTH_MAX = 500
_NUMBER_MAX = 1e15  # larger whole numbers have no float of their own, the largest none at all
# Two threads that make a tree at once break the interpreter before Python 3.12.
_ONE_AT_A_TIME = threading.Lock()

_COMPARE: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def check(text: str) -> None:
    """Raises ValueError if `text` is not a condition; says what is wrong, what allowed."""
    _truth_type(_parse(text), text)


def holds(text: str, result: Mapping[str, float | None]) -> bool:
    """Whether the condition is true of `result`.

    Raises ValueError if a value it needs is missing or a division is by zero: a condition
    that cannot be evaluated is an error, neither success nor failure.
    """
    check(text)
    try:
        return _truth(_parse(text), result)
    except ZeroDivisionError as error:
        raise ValueError(f"{text!r} divides by zero") from error


def _parse(text: str) -> ast.expr:
    if len(text) > _LENGTH_MAX:
        raise ValueError(f"a condition of {len(text)} characters; at most {_LENGTH_MAX}")
    try:
        words = text.replace("&&", " and ").replace("||", " or ")
        with _ONE_AT_A_TIME:
            return ast.parse(words.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not a condition: {error}") from error


def _truth(node: ast.expr, result: Mapping[str, float | None]) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_truth(value, result) for value in values)
        case ast.BoolOp(values=values):
            return any(_truth(value, result) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _truth(operand, result)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _COMPARE[type(op)](_number(left, result), _number(right, result))
        case ast.Constant(value=bool() as value):
            return value
    raise ValueError(f"{ast.unparse(node)!r} is not a truth value")


def _number(node: ast.expr, result: Mapping[str, float | None]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Attribute(attr=name):
            value = result.get(name)
            if value is None:
                raise ValueError(f"there is no data for result.{name}")
            return value
        case ast.UnaryOp(operand=operand):
            return -_number(operand, result)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_number(left, result), _number(right, result))
    raise ValueError(f"{ast.unparse(node)!r} is not a number")


def _truth_type(node: ast.expr, text: str) -> None:
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _truth_type(value, text)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _truth_type(operand, text)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            _number_type(left, text)
            _number_type(right, text)
        case ast.Constant(value=bool()):
            pass
        case _:
            raise _refused(node, text, "a comparison, or several with and, or, not")


def _number_type(node: ast.expr, text: str) -> None:
    match node:
        case ast.Constant(value=bool()):
            raise _refused(node, text, "a number")
        case ast.Constant(value=int() | float() as value) if abs(value) <= _NUMBER_MAX:
            pass
        case ast.Attribute(value=ast.Name(id="result"), attr=name) if name in FIELDS:
            pass
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _number_type(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            _number_type(left, text)
            _number_type(right, text)
        case _:
            fields = ", ".join(f"result.{name}" for name in FIELDS)
            raise _refused(node, text, f"a number, + - * / or one of {fields}")


def _refused(node: ast.expr, text: str, expected: str) -> ValueError:
    return ValueError(f"{ast.unparse(node)!r} in {text!r} is not {expected}")
