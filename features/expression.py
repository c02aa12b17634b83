"""Text in, checked expression out.

Hides Python's own parser, which is used for its grammar alone: nothing is ever executed. Promises that an accepted
expression reads known fields through causal operators, has a canonical form, a hash and an exact lookback, and that
whatever is refused is refused with an `ExpressionError` or a `LookAheadError`, however hostile the text.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import reduce

from core.errors import ExpressionError
from features.fields import FIELDS
from features.node import Node, build_call, build_constant, build_field
from features.operators import NEGATE, OPERATORS, SPELLINGS, Kind

MAX_CHARACTERS = 4_000
MAX_DEPTH = 32
MAX_SIZE = 200

_FOREIGN = re.compile(r"[^A-Za-z0-9_ \t\r\n.,()+\-*/<>=!]")
_NUMBER = re.compile(r"(?<![\w.])\.?\d(?:[eE][+-]\d|[\w.])*")
_PLAIN_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LARGEST_EXACT = 2**53

_BINARY: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "power"}
_COMPARE: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Lt: ("<", False),
    ast.LtE: ("<=", False),
    ast.Gt: ("<", True),
    ast.GtE: ("<=", True),
    ast.Eq: ("==", False),
    ast.NotEq: ("!=", False),
}
_REFUSED: dict[type[ast.expr], str] = {
    ast.Attribute: "attributes are not part of the language; write the name of a field, as `close`",
    ast.Subscript: "subscripts are not part of the language; write delay(x, lag) for an earlier value",
    ast.Lambda: "lambdas are not part of the language; write the formula itself",
    ast.IfExp: "`if` is not part of the language; write where(condition, a, b)",
    ast.NamedExpr: "assignments are not part of the language; write the sub-expression twice, it is computed once",
    ast.Tuple: "one expression is expected, not several; parse them one by one",
    ast.GeneratorExp: "loops are not part of the language; use a ts_ operator",
}


@dataclass(frozen=True)
class Expression:
    """Hold a feature as a checked formula; equal and hashed by its canonical form.

    Parameters
    ----------
    text : str
        As written.
    canonical : str
        Normal form: `>` turned into `<`, commutative arguments sorted, constants folded, spacing normalised. It parses
        back to an equal expression.
    root : Node
        The typed tree.
    """

    text: str = field(compare=False)
    canonical: str
    root: Node = field(compare=False, repr=False)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the canonical form."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def lookback(self) -> int:
        """Bars of history needed beyond the current one."""
        return self.root.lookback

    @property
    def size(self) -> int:
        """Number of nodes of the canonical form."""
        return self.root.size

    @property
    def depth(self) -> int:
        """Number of levels of the canonical form."""
        return self.root.depth

    @property
    def names(self) -> frozenset[str]:
        """Fields as written, for instance ``{"returns"}``."""
        return frozenset(node.canonical for node in self.root.walk() if node.is_field)

    @property
    def fields(self) -> frozenset[str]:
        """Columns of the data that are read, for instance ``{"close"}`` for `returns`.

        Compare it with ``panel.fields``. `vwap` counts as high, low and close.
        """
        return frozenset[str]().union(*(FIELDS[n].columns if n in FIELDS else {n} for n in self.names))

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[[str, tuple[str, ...]], Expression], tuple[str, tuple[str, ...]]]:
        return _parse_again, (self.text, tuple(sorted(self.names - FIELDS.keys())))


def parse(text: str, *, extra: Collection[str] = ()) -> Expression:
    """Parse and check a feature expression without executing anything.

    Parameters
    ----------
    text : str
        Names of fields, numbers, ``+ - * / **``, unary minus, comparisons, ``and or not`` between them and calls of
        operators with positional arguments; at most 4,000 characters, 32 levels and 200 nodes.
    extra : collection of str, default=()
        Further columns that the expression may read (`Panel.extra`).

    Returns
    -------
    Expression

    Raises
    ------
    ExpressionError
        If the text is anything else; it carries the position and says what to write instead.
    LookAheadError
        If a lag or window is not positive.

    Examples
    --------
    >>> parse("-ts_mean(returns, 5) / ts_std(returns, 21)").lookback
    21
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an expression must be text, was {type(text).__name__}; pass a string.")
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"an expression has at most {MAX_CHARACTERS} characters, this has {len(text)}; shorten it.")
    _check_characters(text)
    flat = re.sub(r"\s", " ", text)
    start = len(flat) - len(flat.lstrip())
    if not flat.strip():
        raise ExpressionError("an expression is expected, got empty text; write for instance `-ts_mean(returns, 5)`.", 0)
    try:
        tree = ast.parse(flat[start:], mode="eval")
    except SyntaxError as error:
        position = start + max((error.offset or 1) - 1, 0)
        raise ExpressionError(
            f"this is not a formula ({error.msg}) at column {position}; check brackets and commas.", position
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise ExpressionError(f"an expression has at most {MAX_DEPTH} levels, this has many more; simplify it.", 0) from None
    reader = _Reader(start=start, names=frozenset(FIELDS) | frozenset(extra))
    root = reader.read(tree.body, depth=1)
    if root.size > MAX_SIZE or root.depth > MAX_DEPTH:
        raise ExpressionError(
            f"an expression has at most {MAX_SIZE} nodes and {MAX_DEPTH} levels, this has {root.size} and {root.depth}; "
            "simplify it.",
            start,
        )
    if root.value is not None:
        raise ExpressionError(f"a feature reads at least one field, `{flat.strip()[:40]}` is a constant; use `close`.", start)
    if root.kind is Kind.MASK:
        raise ExpressionError("a feature is a number, this is a comparison; write where(comparison, 1, 0).", start)
    return Expression(text=text, canonical=root.canonical, root=root)


def _parse_again(text: str, extra: tuple[str, ...]) -> Expression:
    return parse(text, extra=extra)


def _check_characters(text: str) -> None:
    if (foreign := _FOREIGN.search(text)) is not None:
        raise ExpressionError(
            f"the character {foreign.group()!a} at column {foreign.start()} is not part of the language; "
            "use names, numbers, brackets, commas, + - * / ** and comparisons.",
            foreign.start(),
        )
    for number in _NUMBER.finditer(text):
        if _PLAIN_NUMBER.fullmatch(number.group()) is None:
            raise ExpressionError(
                f"`{number.group()[:40]}` at column {number.start()} is not a plain decimal number; write 0.5 or 21.",
                number.start(),
            )


@dataclass
class _Reader:
    start: int
    names: frozenset[str]
    seen: int = 0

    def read(self, tree: ast.expr, depth: int) -> Node:
        position = self.start + tree.col_offset
        self.seen += 1
        if depth > MAX_DEPTH:
            raise ExpressionError(f"an expression has at most {MAX_DEPTH} levels, this has more; simplify it.", position)
        if self.seen > MAX_SIZE:
            raise ExpressionError(f"an expression has at most {MAX_SIZE} nodes, this has more; simplify it.", position)
        match tree:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _constant(value, position)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
                value, bool
            ):
                return build_call(NEGATE, (_constant(value, position),), position)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return build_call(NEGATE, (self.read(operand, depth + 1),), position)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                sides = (self.read(left, depth + 1), self.read(right, depth + 1))
                return build_call(_BINARY[type(op)], sides, position)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return build_call("not", (self.read(operand, depth + 1),), position)
            case ast.BoolOp(op=op, values=values):
                name = "and" if isinstance(op, ast.And) else "or"
                masks = [self.read(value, depth + 1) for value in values]
                return reduce(lambda left, right: build_call(name, (left, right), position), masks)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                name, swap = _COMPARE[type(op)]
                a, b = self.read(left, depth + 1), self.read(right, depth + 1)
                return build_call(name, (b, a) if swap else (a, b), position)
            case ast.Name(id=name):
                return self._field(name, position)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return self._call(name, args, keywords, depth, position)
            case ast.Compare(ops=[_, _, *_]):
                raise ExpressionError(
                    f"a chain of comparisons at column {position} is not part of the language; write one at a time.", position
                )
        reason = _REFUSED.get(type(tree), "this is not part of the language; use fields, numbers, operators and + - * / **")
        raise ExpressionError(f"at column {position}: {reason}.", position)

    def _field(self, name: str, position: int) -> Node:
        if name in self.names:
            return build_field(name)
        if name in OPERATORS:
            raise ExpressionError(f"`{name}` at column {position} is an operator; write {OPERATORS[name].usage}.", position)
        raise ExpressionError(
            f"unknown field `{_short(name)}` at column {position}{_meant(name, self.names)}; "
            f"the fields are {', '.join(sorted(self.names))}.",
            position,
        )

    def _call(self, name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int, position: int) -> Node:
        name = SPELLINGS.get(name, name)
        known = [operator.name for operator in OPERATORS.values() if operator.is_call]
        if name not in known:
            raise ExpressionError(
                f"unknown operator `{_short(name)}` at column {position}{_meant(name, known)}; "
                f"the operators are {', '.join(sorted(known))}.",
                position,
            )
        if keywords:
            raise ExpressionError(
                f"`{name}` at column {position} takes positional arguments only; write {OPERATORS[name].usage}.", position
            )
        return build_call(name, tuple(self.read(arg, depth + 1) for arg in args), position)


def _constant(value: int | float, position: int) -> Node:
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        try:
            value = float(value)
        except OverflowError:
            raise ExpressionError(f"the number at column {position} is too large; write a smaller one.", position) from None
    return build_constant(value, position)


def _meant(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name[:60], known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."
