"""What a number is measured in: prices, shares, products of both, or nothing.

Hides how units combine. Promises that a sum or comparison of unlike things can be told before anything is computed. A unit
that is not known (a further column of a data set may hold anything) fits every other; so does a plain number in a sum,
as in ``close + 1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """Hold a unit as powers of the two there are.

    Parameters
    ----------
    price : float, default=0.0
        Power of the currency per share.
    share : float, default=0.0
        Power of the number of shares; money is ``price * share``.
    """

    price: float = 0.0
    share: float = 0.0

    def times(self, other: Unit, power: float = 1.0) -> Unit:
        """Multiply by a power of another unit."""
        return Unit(
            price=round(self.price + power * other.price, _DIGITS) + 0.0,
            share=round(self.share + power * other.share, _DIGITS) + 0.0,
        )

    def __str__(self) -> str:
        above = " * ".join(_power(name, power) for name, power in self._powers() if power > 0.0)
        below = " / ".join(_power(name, -power) for name, power in self._powers() if power < 0.0)
        return f"{above or '1'} / {below}" if below else above or "no unit"

    def _powers(self) -> tuple[tuple[str, float], ...]:
        return ("price", self.price), ("share", self.share)


NO_UNIT = Unit()
PRICE = Unit(price=1.0)
SHARE = Unit(share=1.0)


@dataclass(frozen=True, slots=True)
class UnitRule:
    """Say how the units of an operator's arguments make the unit of its result.

    Parameters
    ----------
    powers : tuple of float, default=()
        Power to which each argument's unit enters the result, zero where none is given; so ``()`` gives no unit.
    alike : tuple of int, default=()
        Places of the arguments whose units must be equal; their unit is the result's.
    bare : bool, default=False
        Whether the first argument may not have a unit.
    raised : bool, default=False
        Whether the result has the first argument's unit to the power of the second, a constant.
    """

    powers: tuple[float, ...] = ()
    alike: tuple[int, ...] = ()
    bare: bool = False
    raised: bool = False

    def result(self, units: Sequence[Unit | None], numbers: Sequence[float | None]) -> Unit | None:
        """Combine the units of arguments that have been found acceptable.

        Parameters
        ----------
        units : sequence of Unit or None
            One per argument; None where it is not known, and for constants.
        numbers : sequence of float or None
            The constants among the arguments.

        Returns
        -------
        Unit or None
            None if it cannot be known.
        """
        if self.alike:
            known = [units[place] for place in self.alike if units[place] is not None]
            constant = all(numbers[place] is not None for place in self.alike)
            return known[0] if known else NO_UNIT if constant else None
        powers = (numbers[1] or 0.0,) if self.raised else self.powers
        unit = NO_UNIT
        for part, number, power in zip(units, numbers, powers, strict=False):
            if number is None and part is None:
                return None
            if part is not None:
                unit = unit.times(part, power)
        return unit

    def clashing(self, units: Sequence[Unit | None]) -> tuple[int, int] | None:
        """Find the first two places whose units must be equal and are not."""
        known = [place for place in self.alike if units[place] is not None]
        return next(((known[0], place) for place in known[1:] if units[place] != units[known[0]]), None)


PLAIN = UnitRule()
"""The result has no unit, whatever the arguments have."""
KEEP = UnitRule(powers=(1.0,))
LIKE = UnitRule(alike=(0, 1))
PRODUCT = UnitRule(powers=(1.0, 1.0))
QUOTIENT = UnitRule(powers=(1.0, -1.0))
RAISED = UnitRule(raised=True)


def _power(name: str, power: float) -> str:
    return name if power == 1.0 else f"{name} ** {power:g}"
