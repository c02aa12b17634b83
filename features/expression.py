"""Text in, checked expression out.

Promises that an accepted expression reads known fields through causal operators, adds only like to like, has a canonical
form, a hash and an exact lookback, and that whatever is refused is refused with an `ExpressionError` or a
`LookAheadError`, however hostile the text. Nothing is ever executed.
"""

from __future__ import annotations

import hashlib
import keyword
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from core.errors import ExpressionError
from features.fields import FAMILIES, FIELDS, find_field
from features.node import Node
from features.operators import OPERATORS, SPELLINGS
from features.reader import Vocabulary, read_text
from features.technical import INDICATORS
from features.units import Unit

LANGUAGE = frozenset(FIELDS.keys() | FAMILIES.keys() | OPERATORS.keys() | SPELLINGS.keys() | INDICATORS.keys())
"""Words that no feature may be called by."""


@dataclass(frozen=True)
class Expression:
    """Hold a feature as a checked formula; equal and hashed by its canonical form.

    Parameters
    ----------
    text : str
        As written.
    canonical : str
        Normal form: features and indicators written out, `>` turned into `<`, commutative arguments sorted, constants
        folded, what changes no bit taken out (``x * 1``), spacing normalised. It parses back to an equal expression, and
        needs no other feature for that.
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
    def unit(self) -> Unit | None:
        """What the values are measured in; None where it cannot be known."""
        return self.root.unit

    @property
    def names(self) -> frozenset[str]:
        """Fields as written, for instance ``{"returns"}``."""
        return frozenset(node.canonical for node in self.root.walk() if node.is_field)

    @property
    def fields(self) -> frozenset[str]:
        """Columns of the data that are read, for instance ``{"close"}`` for `returns`.

        Compare it with ``panel.fields``. `vwap` counts as high, low and close.
        """
        found = {name: find_field(name) for name in self.names}
        return frozenset[str]().union(*({name} if field is None else field.columns for name, field in found.items()))

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Callable[[str, str, tuple[str, ...]], Expression], tuple[str, str, tuple[str, ...]]]:
        return _parse_again, (self.text, self.canonical, tuple(sorted(name for name in self.names if find_field(name) is None)))


def parse(
    text: str, *, extra: Collection[str] = (), features: Mapping[str, Expression | str] = MappingProxyType({})
) -> Expression:
    """Parse and check a feature expression without executing anything.

    Parameters
    ----------
    text : str
        Names of fields, features and numbers, ``+ - * / **``, unary minus, comparisons, ``and or not`` between them, and
        calls of operators and indicators with positional arguments; at most 4,000 characters, and 32 levels and 200 nodes
        when features and indicators are written out.
    extra : collection of str, default=()
        Further columns that the expression may read (`Panel.extra`).
    features : mapping of str to Expression or str, default={}
        Other features that the expression may build on by name, as may the texts among them, up to 16 levels.

    Returns
    -------
    Expression

    Raises
    ------
    ExpressionError
        If the text is anything else; it carries the position and says what to write instead. Also if features build on
        themselves, or one is called like a field or an operator.
    LookAheadError
        If a lag or window is not positive.

    Examples
    --------
    >>> parse("-ts_mean(returns, 5) / ts_std(returns, 21)").lookback
    21
    >>> parse("rank(trend) - 0.5", features={"trend": "close / ts_mean(close, 63)"}).canonical
    'rank(close / ts_mean(close, 63)) - 0.5'
    """
    _check_names(features)
    known = {name: item.root if isinstance(item, Expression) else item for name, item in features.items()}
    root = read_text(text, Vocabulary(fields=frozenset(FIELDS) | frozenset(extra), features=known))
    return Expression(text=text, canonical=root.canonical, root=root)


def is_buildable(name: str) -> bool:
    """Tell whether an expression can build on a feature of this name: one plain word that is not one of the language."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name not in LANGUAGE


def _parse_again(text: str, canonical: str, extra: tuple[str, ...]) -> Expression:
    return replace(parse(canonical, extra=extra), text=text)


def _check_names(features: Mapping[str, Expression | str]) -> None:
    for name in features:
        if name in LANGUAGE:
            raise ExpressionError(f"a feature may not be called `{name}`, which is part of the language; rename it.")
