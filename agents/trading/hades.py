"""Hades, compliance: may this signal be traded at all?

Hides how names are compared and terms are found. Promises that nothing passes that was not screened: without lists, or with
lists older than allowed, everything is refused. A name that matches kills; one that nearly matches downgrades for review, and
an ESG term flags: both lower the severity by one level, which the model reads, and the compliance score, by which the limits
cut the stake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents.trading.name_index import NameMatch
from agents.trading.names import split_words
from agents.trading.sanctions import ListSource, ScreeningLists
from core.clock import Clock
from core.errors import ConfigurationError, DataError
from core.types import BindingConstraint, FilteredSignal, RawSignal, Refusal, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class HadesConfig:
    """What Hades lets pass.

    Parameters
    ----------
    kill_score : float, default=0.95
        Name similarity from which a signal is refused, as a fraction.
    review_score : float, default=0.85
        Similarity from which it is downgraded.
    max_list_age : timedelta, default=14 days
        A list older than this refuses everything, as does one dated more than a day ahead.
    esg_compliance, review_compliance : float, default=0.4 and 0.7
        Compliance score of a signal with an ESG term, and of one that is downgraded; the lower of both when it is both.
    esg_terms : tuple of str
        Terms that flag a signal where they occur as whole words.
    esg_blocked_terms : tuple of str
        Terms that refuse it.

    Raises
    ------
    ConfigurationError
        If the two similarities are not ordered fractions, a score is not a fraction, or the age is not positive.
    """

    kill_score: float = 0.95
    review_score: float = 0.85
    max_list_age: timedelta = timedelta(days=14)
    esg_compliance: float = 0.4
    review_compliance: float = 0.7
    esg_terms: tuple[str, ...] = (
        "arms dealer", "arms dealers", "bribe", "bribery", "bribes", "coal", "corruption", "deforestation", "discrimination",
        "fossil fuel", "fossil fuels", "fracking", "fraud", "gambling", "harassment", "human rights", "money laundering",
        "oil sands", "oil spill", "oil spills", "pollution", "tar sands", "tobacco", "toxic", "toxic waste", "weapon",
        "weapons",
    )  # fmt: skip
    esg_blocked_terms: tuple[str, ...] = (
        "anti personnel mine", "anti personnel mines", "biological weapon", "biological weapons", "chemical weapon",
        "chemical weapons", "child labor", "child labour", "cluster bomb", "cluster bombs", "cluster munition",
        "cluster munitions", "forced labor", "forced labour", "human trafficking", "landmine", "landmines", "slave labor",
        "slave labour",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if not 0.0 < self.review_score <= self.kill_score <= 1.0:
            raise ConfigurationError(
                "`review_score` and `kill_score` must be fractions in this order, "
                f"were {self.review_score} and {self.kill_score}."
            )
        for name in ("esg_compliance", "review_compliance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"`{name}` must be a fraction in 0..1, was {getattr(self, name)}.")
        if self.max_list_age <= timedelta(0):
            raise ConfigurationError(f"`max_list_age` must be positive, was {self.max_list_age}.")
        for term in (*self.esg_terms, *self.esg_blocked_terms):
            if not split_words(term):
                raise ConfigurationError(f"an ESG term must have a word, was {term!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What the screening of a signal said.

    Parameters
    ----------
    filtered : FilteredSignal
        The signal with its scores; of a refused one with the compliance score 0.
    refusal : Refusal, optional
        Why it goes no further.
    list_version : str, optional
        Which lists were asked; None when there were none that could be.
    matched_entry : str, optional
        The listed name that matched or nearly did, with its number on the list.
    """

    filtered: FilteredSignal
    refusal: Refusal | None = None
    list_version: str | None = None
    matched_entry: str | None = None


class Hades:
    """Screen signals against sanctions lists and ESG terms.

    Parameters
    ----------
    lists : ListSource
        Gives the lists, anew when they change.
    config : HadesConfig
    clock : Clock
        Tells how old the lists are.
    companies : callable, optional
        Takes a ticker and returns the names of its company, which are screened as well; without it only the supplier and the
        text are.
    """

    def __init__(
        self,
        lists: ListSource,
        config: HadesConfig,
        clock: Clock,
        companies: Callable[[str], Sequence[str]] = lambda ticker: (),
    ) -> None:
        self._lists, self._config, self._clock, self._companies = lists, config, clock, companies
        self._flagged = _Terms(config.esg_terms)
        self._blocked = _Terms(config.esg_blocked_terms)

    def screen(self, signal: RawSignal) -> Screening:
        """Return what may be traded of a signal, or why it may not.

        Notes
        -----
        Screened are the supplier, the names of the companies behind the tickers, and the headline and the summary each in
        windows of words. The nearest name decides.
        """
        try:
            lists = self._lists.load()
        except DataError as error:
            return self._unscreened(signal, str(error))
        unusable = self._unusable(lists, self._clock.now())
        if unusable is not None:
            return self._unscreened(signal, unusable)
        match = self._nearest(lists, signal)
        entry = None if match is None else f"{match.listed.entry} {match.listed.name}"
        said = [] if match is None else [f"{match.found!r} is {match.score:.3f} near to {entry}"]
        if match is not None and match.score >= self._config.kill_score:
            reason = f"{said[0]}, from {self._config.kill_score} on it is refused."
            filtered = FilteredSignal(original=signal, compliance_score=0.0, ofac_flag=True, notes=tuple(said))
            refusal = Refusal(stage=Stage.HADES, constraint=BindingConstraint.SANCTIONS, reason=reason)
            return Screening(filtered=filtered, refusal=refusal, list_version=lists.version, matched_entry=entry)
        words = [split_words(signal.headline), split_words(signal.summary)]
        flagged = list(dict.fromkeys(term for part in words for term in self._flagged.find(part)))
        blocked = list(dict.fromkeys(term for part in words for term in self._blocked.find(part)))
        if blocked:
            said.append(f"excluded by ESG: {', '.join(blocked)}")
            filtered = FilteredSignal(
                original=signal, compliance_score=0.0, esg_flag=True, downgraded=match is not None, notes=tuple(said)
            )
            reason = f"the text names what is excluded: {', '.join(blocked)}."
            refusal = Refusal(stage=Stage.HADES, constraint=BindingConstraint.ESG_BLOCK, reason=reason)
            return Screening(filtered=filtered, refusal=refusal, list_version=lists.version, matched_entry=entry)
        if flagged:
            said.append(f"ESG: {', '.join(flagged)}")
        score = min(1.0 if match is None else self._config.review_compliance, self._config.esg_compliance if flagged else 1.0)
        filtered = FilteredSignal(
            original=signal,
            compliance_score=score,
            esg_flag=bool(flagged),
            downgraded=match is not None,
            notes=tuple(said),
        )
        return Screening(filtered=filtered, list_version=lists.version, matched_entry=entry)

    def restart(self) -> None:
        """Read the lists anew at the next signal."""
        self._lists.forget()

    def _unusable(self, lists: ScreeningLists, now: datetime) -> str | None:
        for item in lists.lists:
            age = now - item.dated
            if age > self._config.max_list_age:
                return f"the list {item.version} is {age.days} days old, at most {self._config.max_list_age.days} are allowed."
            if age < -timedelta(days=1):
                return f"the list {item.version} is dated after today, {now:%Y-%m-%d}: one of them is wrong."
        return None

    def _unscreened(self, signal: RawSignal, reason: str) -> Screening:
        filtered = FilteredSignal(original=signal, compliance_score=0.0, notes=("not screened",))
        refusal = Refusal(stage=Stage.HADES, constraint=BindingConstraint.SANCTIONS_LIST_MISSING, reason=reason)
        return Screening(filtered=filtered, refusal=refusal)

    def _nearest(self, lists: ScreeningLists, signal: RawSignal) -> NameMatch | None:
        index, at_least = lists.index, self._config.review_score
        names = [] if signal.supplier is None else [signal.supplier]
        names += [name for ticker in signal.affected_tickers for name in self._companies(ticker)]
        found = [index.match_name(name, at_least=at_least) for name in dict.fromkeys(names)]
        found += [index.match_text(text, at_least=at_least) for text in (signal.headline, signal.summary) if text]
        return max((match for match in found if match is not None), key=lambda match: match.score, default=None)


class _Terms:
    """Finds terms of one or more words as whole words."""

    def __init__(self, terms: Sequence[str]) -> None:
        self._starting_with: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
        for term in terms:
            words = split_words(term)
            self._starting_with[words[0]].append((words, term))

    def find(self, words: Sequence[str]) -> Iterator[str]:
        for at, word in enumerate(words):
            for wanted, term in self._starting_with.get(word, ()):
                if words[at : at + len(wanted)] == wanted:
                    yield term
