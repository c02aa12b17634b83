"""Text in, typed tree out.

Hides Python's own parser, which is used for its grammar alone: nothing is ever executed. Promises that work is bounded by
the limits below, whatever the text, the features it builds on and the indicators it expands.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce

from core.errors import ExpressionError, LookAheadError
from features.calls import build_call, check_arguments
from features.fields import FAMILIES, FieldFamily, find_field
from features.node import Node, build_constant, build_field
from features.operators import NEGATE, OPERATORS, SPELLINGS, Kind
from features.technical import INDICATORS, Indicator

MAX_CHARACTERS = 4_000
MAX_DEPTH = 32
MAX_SIZE = 200
MAX_FEATURE_LEVELS = 16
"""Features that may build on one another, one above the other."""

_NAMES_LISTED = 40
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


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Hold the names that a text may use besides operators and indicators.

    Parameters
    ----------
    fields : frozenset of str
        Names that are read from the data.
    features : mapping of str to Node or str
        Other features by name: trees, or texts that are read when they are first needed.
    """

    fields: frozenset[str]
    features: Mapping[str, Node | str]
    _known: dict[str, Node] = field(default_factory=dict)

    def expand(self, name: str, above: tuple[str, ...]) -> Node:
        """Return the tree of a feature; `above` are the features that are being read, the outermost first."""
        if name in above:
            cycle = " -> ".join((*above[above.index(name) :], name))
            raise ExpressionError(f"features may not build on themselves: {cycle}; take one of them out of the circle.")
        if len(above) >= MAX_FEATURE_LEVELS:
            raise ExpressionError(
                f"features build on at most {MAX_FEATURE_LEVELS} levels of others, this on more: {' -> '.join(above[:4])} -> "
                "...; write the formula itself."
            )
        if name not in self._known:
            source = self.features[name]
            root = read_text(source, self, (*above, name)) if isinstance(source, str) else source
            read = {node.canonical for node in root.walk() if node.is_field}
            unknown = sorted(name for name in read - self.fields if find_field(name) is None)
            if unknown:
                raise ExpressionError(f"it reads `{shorten(unknown[0])}`, which is not among the fields here.")
            self._known[name] = root
        return self._known[name]


def read_text(text: str, vocabulary: Vocabulary, above: tuple[str, ...] = ()) -> Node:
    """Read one feature.

    Parameters
    ----------
    text : str
        The formula.
    vocabulary : Vocabulary
        Names it may use.
    above : tuple of str, default=()
        Names of the features that are being read, and that this text belongs to.

    Raises
    ------
    ExpressionError
        If the text is not a feature; it carries the position and says what to write instead.
    LookAheadError
        If a lag or window is not positive.
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
    root = _Reader(start=start, vocabulary=vocabulary, above=above).read(tree.body, depth=1)
    if root.value is not None:
        raise ExpressionError(f"a feature reads at least one field, `{flat.strip()[:40]}` is a constant; use `close`.", start)
    if root.kind is Kind.MASK:
        raise ExpressionError("a feature is a number, this is a comparison; write where(comparison, 1, 0).", start)
    return root


def shorten(name: str) -> str:
    """Cut a name that is too long for a message."""
    return name if len(name) <= 40 else f"{name[:37]}..."


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
    vocabulary: Vocabulary
    above: tuple[str, ...]
    bound: Mapping[str, Node] = field(default_factory=dict)
    seen: int = 0

    def read(self, tree: ast.expr, depth: int) -> Node:
        position = self.start + tree.col_offset
        if depth > MAX_DEPTH:
            raise ExpressionError(f"an expression has at most {MAX_DEPTH} levels, this has more; simplify it.", position)
        self._count(1, position)
        node = self._read(tree, depth, position)
        if node.size > MAX_SIZE or node.depth > MAX_DEPTH:
            raise ExpressionError(
                f"an expression has at most {MAX_SIZE} nodes and {MAX_DEPTH} levels, this has {node.size} and {node.depth} "
                "when it is written out; simplify it.",
                position,
            )
        return node

    def _count(self, nodes: int, position: int) -> None:
        self.seen += nodes
        if self.seen > MAX_SIZE:
            raise ExpressionError(f"an expression has at most {MAX_SIZE} nodes, this has more; simplify it.", position)

    def _read(self, tree: ast.expr, depth: int, position: int) -> Node:
        match tree:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return _constant(value, position)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if not isinstance(
                value, bool
            ):
                return build_call(NEGATE, (_constant(value, position),), position)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return build_call(NEGATE, (self.read(operand, depth + 1),), position)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return build_call("not", (self.read(operand, depth + 1),), position)
            case ast.BoolOp(op=op, values=values):
                name = "and" if isinstance(op, ast.And) else "or"
                masks = [self.read(value, depth + 1) for value in values]
                return reduce(lambda left, right: build_call(name, (left, right), position), masks)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                sides = (self.read(left, depth + 1), self.read(right, depth + 1))
                return build_call(_BINARY[type(op)], sides, position)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                name, swap = _COMPARE[type(op)]
                a, b = self.read(left, depth + 1), self.read(right, depth + 1)
                return build_call(name, (b, a) if swap else (a, b), position)
            case ast.Name(id=name):
                return self._name(name, position)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return self._call(SPELLINGS.get(name, name), args, keywords, depth, position)
            case ast.Compare(ops=[_, _, *_]):
                raise ExpressionError(
                    f"a chain of comparisons at column {position} is not part of the language; write one at a time, joined by "
                    "`and`.",
                    position,
                )
        reason = _REFUSED.get(type(tree), "this is not part of the language; use fields, numbers, operators and + - * / **")
        raise ExpressionError(f"at column {position}: {reason}.", position)

    def _name(self, name: str, position: int) -> Node:
        if name in self.bound:
            return self.bound[name]
        fields, features = self.vocabulary.fields, self.vocabulary.features
        if name in features:
            if name in fields:
                raise ExpressionError(
                    f"`{name}` at column {position} is a column of the data and a feature; rename the feature.", position
                )
            return self._feature(name, position)
        if name in fields:
            return build_field(name)
        for known in (OPERATORS, INDICATORS, FAMILIES):
            if name in known:
                raise ExpressionError(f"`{name}` at column {position} is an operator; write {known[name].usage}.", position)
        further = f"; {len(features)} features can be named too" if features else ""
        raise ExpressionError(
            f"unknown field `{shorten(name)}` at column {position}{_meant(name, [*fields, *features])}; "
            f"the fields are {_listed(fields)}{further}.",
            position,
        )

    def _feature(self, name: str, position: int) -> Node:
        try:
            root = self.vocabulary.expand(name, self.above)
        except LookAheadError as error:
            raise LookAheadError(_within(name, error), position) from None
        except ExpressionError as error:
            raise ExpressionError(_within(name, error), position) from None
        self._count(root.size - 1, position)
        return root

    def _call(self, name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int, position: int) -> Node:
        indicator = INDICATORS.get(name)
        operator = OPERATORS.get(name)
        family = FAMILIES.get(name)
        if indicator is None and family is None and (operator is None or not operator.is_call):
            known = [*(operator.name for operator in OPERATORS.values() if operator.is_call), *INDICATORS, *FAMILIES]
            raise ExpressionError(
                f"unknown operator `{shorten(name)}` at column {position}{_meant(name, known)}; "
                f"the operators are {', '.join(sorted(known))}.",
                position,
            )
        if keywords:
            usage = (indicator or family or OPERATORS[name]).usage
            raise ExpressionError(f"`{name}` at column {position} takes positional arguments only; write {usage}.", position)
        nodes = tuple(self.read(arg, depth + 1) for arg in args)
        if family is not None:
            return _of_family(family, nodes, position)
        return build_call(name, nodes, position) if indicator is None else self._indicator(indicator, nodes, position)

    def _indicator(self, indicator: Indicator, args: tuple[Node, ...], position: int) -> Node:
        check_arguments(indicator.name, indicator.usage, indicator.signature, args, position)
        # Before anything is built: what is written out may be many times what is written.
        size = indicator.size([arg.size for arg in args])
        if size > MAX_SIZE:
            raise ExpressionError(
                f"an expression has at most {MAX_SIZE} nodes, `{indicator.name}` at column {position} has {size} when it is "
                "written out; simplify it.",
                position,
            )
        body = _Reader(
            start=0,
            vocabulary=Vocabulary(fields=frozenset(), features={}),
            above=(),
            bound=dict(zip(indicator.parameters, args, strict=True)),
        )
        try:
            return body.read(indicator.tree, depth=1)
        except LookAheadError as error:
            raise LookAheadError(f"in `{indicator.name}`: {error}", position) from None
        except ExpressionError as error:
            raise ExpressionError(
                f"in `{indicator.name}` at column {position}, which is {indicator.body}: {error}", position
            ) from None


def _of_family(family: FieldFamily, args: tuple[Node, ...], position: int) -> Node:
    check_arguments(family.name, family.usage, (Kind.WINDOW,) * len(family.ranges), args, position)
    for (what, (smallest, largest)), arg in zip(family.ranges.items(), args, strict=True):
        if not smallest <= int(arg.value or 0) <= largest:
            raise ExpressionError(
                f"the {what} of `{family.name}` at column {position} must be in {smallest}..{largest}, was {arg.brief}; write "
                f"{family.usage}.",
                position,
            )
    return build_field(f"{family.name}({', '.join(arg.canonical for arg in args)})")


def _within(name: str, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(("in the feature", "features ")) else f"in the feature `{shorten(name)}`: {text}"


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


def _listed(names: Collection[str]) -> str:
    """Names in order, so many that a message stays readable."""
    listed = ", ".join(shorten(name) for name in sorted(names)[:_NAMES_LISTED])
    return listed if len(names) <= _NAMES_LISTED else f"{listed} and {len(names) - _NAMES_LISTED} more"
