"""Which way a signal points, since the contract carries a category and words, and no direction.

Hides the words. Promises that what a category or the headline's words leave in doubt is negative. It reads no more than words:
bad news in words that no list has is missed.
"""

from __future__ import annotations

import re
import unicodedata

from core.types import RawSignal, SignalCategory

_USUALLY_GOOD = frozenset({SignalCategory.POSITIVE_NEWS, SignalCategory.EARNINGS_SURPRISE})


def _any_of(words: str, *phrases: str) -> str:
    """Return the pattern of any of these words, of which ``*`` is any ending, and of any of these patterns."""
    return rf"\b(?:{'|'.join([*words.replace('*', '[a-z]*').split(), *phrases])})\b"


_STRIKE = r"strikes?(?!(?: \w+){0,3} (?:accord|agreement|alliance|deal|pact|partnership))"
# What is good news as soon as it is over.
_TROUBLE = _any_of(
    """
    attack* ban bans bottleneck* congestion crisis crunch curb curbs cyberattack* delay delays dispute* disruption* embargo*
    explosion* fire fires flood* freeze grounding halt hurricane inflation inquiry inquiries investigation* lawsuit* lockdown*
    lockout* outage* probe probes recall recalls restriction* sanctions shortage* shutdown* squeeze storm suspension* tariff*
    tensions unemployment unrest walkout*
    """,
    _STRIKE,
)
_BURDEN = _any_of("ban bans curb curbs embargo* freeze grounding lockdown* restriction* sanctions suspension* tariff*")
# That it ends is the news ...
_AND_SO_ON = r"(?: (?!and\b|as\b|hits?\b|while\b)\w+)"
_OVER = (
    rf"\b(?:eas(?:es?|ed|ing)|resolv(?:es?|ed)){_AND_SO_ON}{{0,2}} (?:{_TROUBLE}|policy|rules)\b"
    rf"|\blift(?:s|ed)?{_AND_SO_ON}{{0,2}} {_BURDEN}"
    rf"|{_TROUBLE}{_AND_SO_ON}{{0,4}} (?:eas(?:es?|ed|ing)|resolved)\b"
    rf"|{_BURDEN}{_AND_SO_ON}{{0,6}} lifted(?! (?!after\b|as\b|at\b|by\b|for\b|in\b|on\b)\w)"
)
# ... or it is what the news comes after.
_BEHIND = rf"\b(?:after|following|from)(?: [\w-]+){{0,2}} {_TROUBLE}"
_FORGIVEN = re.compile(f"{_OVER}|{_BEHIND}")

_RESOLVED = re.compile(
    _any_of(
        """
        approval approvals approve approved approves clear clearance cleared clears recover recovered recovers reopen reopened
        reopens resolved resolves restart restarted restarts restore restored restores resume resumed resumes
        """,
        _OVER,
    )
)
# Nothing comes of it.
_UNDONE = re.compile(
    r"\?|n't\b|\bno\b(?!\W*\d)|"
    + _any_of(
        """
        abandon* blocked blocking blocks cancel* cannot collaps* delayed denial denied denies deny exclud* expir* fail* halted
        halting halts lack lacks lapse* neither never nor not nothing objected objection* objects oppos* oust* overturn*
        postpon* refus* reject* remov* rescind* revers* revok* scrap scrapped scraps setback* shelve* stalled stalling stalls
        suspend* terminat* threat* unable unlikely unsuccessful* vetoed vetoes withdr*
        """,
        r"(?:could|may|might|to|will) block",
        r"(?:back|walk|pull)(?:s|ed)? (?:away|out)",
        r"pull(?:s|ed)? (?:bid|deal|forecast|guidance|outlook)",
        r"call(?:s|ed)? off",
        r"(?:court|doj|eu|ftc|regulators?|watchdog) challenge[sd]?",
        r"(?:threw|throws|thrown) out",
        r"ends?(?: \w+){0,2} (?:agreement|alliance|contract|deal|merger|partnership|talks|venture)",
        r"rivals? (?:beats?|gains?|snags?|takes?|wins?)",
    )
)
_BAD = re.compile(
    # A figure goes the wrong way.
    _any_of(
        """
        below crater* cut cuts declin* decreas* deteriorat* dip dipped dips disappoint* dive dives down downgrad* downturn*
        drop dropped dropping drops erod* evaporat* fade fades fading fallen falling falls fell flat halved halves headwind*
        hurt* impair* lackluster less lose loses losing loss losses lost lower* miss missed misses missing negative nosediv*
        plummet* plung* sank selloff shortfall* shrank shrink* sink* slash* slid slide* slip slipped slips slow slowdown
        slowed slower slowing slows sluggish slump* soften* squeez* stagnat* tank tanked tanks trim trimmed trims tumbl*
        underperform* undershoot* underwhelm* warn warned warning* warns weak* worse* worst
        """,
        r"(?<!this )(?<!next )(?<!in the )fall",
        r"(?:hit by|poor(?!')|sell-off|short of|write-?(?:down|off)s?|writ(?:es|ten|ing) (?:down|off))",
        r"(?:forecasts?|guid(?:es?|ed|ing))(?: \w+)? low",
        r"margins? (?:contract|narrow)(?:s|ed)?",
        r"reduc(?:es?|ed|ing)(?: \w+){0,2} (?:dividend|forecast|guidance|outlook|output|stake|target|workforce)",
    )
    # Something happens that nobody wants.
    + "|"
    + _any_of(
        """
        accus* alleg* arrest* bailout* bankrupt* banned breach* bribe* charged closure* complaint* concern* contaminat*
        convict* crash* creditor* death* defaulted defaults defect* delist* dies dilut* disrupted disrupts doubt* fear* fined
        fines fired fraud* guilty hacked hackers indict* injur* insolven* investigat* kill killed kills layoff* liquidat*
        litigation mislead* misstat* penalt* probed quit quits raid raided raids recalled resign* restat* scandal* scrutin*
        shut shuts shuttered shutting stolen struggl* subpoena* sue sued sues suing theft trouble* turmoil uncertain*
        verdict* violat* worries worry
        """,
        "fine(?![- ]?tun)",
        "lays off",
        r"(?:chapter (?:7|11|seven|eleven)|ordered to pay|short[- ]sellers?)",
        _TROUBLE,
    )
    # A figure is below zero.
    + r"|(?<!\w)[-\u2212]\$?\d|\(\$\d"
)
# What leaves open whether trouble is over, and what may be approved that is none the better for it.
_OPEN = re.compile(
    _any_of(
        """
        against ahead appeal* application* applied applies apply asked asks await* before begin* bill breakup but challeng*
        chance* competitor* cost costs could criti* despite due duties duty except expect* filed files generic* half hearing*
        higher hike* hope hoped hopes if law levies levy likely limits might must near nearing nears need* odds only partial*
        partly pending plan planned plans price prices propos* protest* question* quota* request* require* reviewing reviews
        risk* rival* seek* some sought stricter talks tax taxes temporar* tighter tougher unless until urge* when whether will
        without would
        """,
        r"(?<!in )may(?! \d)",
        r"clear(?:s|ed)? (?:the |a )?(?:path|way)",
        "non-",
        "to (?:approve|clear|ease|lift|recover|reopen|resolve|restart|restore|resume)",
    )
)


def is_negative(signal: RawSignal) -> bool:
    """Say whether a signal speaks against holding its ticker.

    Parameters
    ----------
    signal : RawSignal

    Returns
    -------
    bool
        Of positive news and earnings surprises, whether the headline has a bad word or a negation. Disruptions, regulation and
        macro shifts are negative unless the headline says that something is approved or over, and nothing bad, conditional or
        yet to come.

    Notes
    -----
    Whole words of the headline only, from fixed lists: transparent, and blind to irony and to what a list lacks. Good words
    outweigh no bad one, and a question is negative. Trouble counts as good where the news is that it ends ("shortage eases"),
    and for nothing where something resumes or recovers after it.
    """
    headline = unicodedata.normalize("NFKC", signal.headline).replace("’", "'").lower()
    resolved = _RESOLVED.search(headline) is not None
    rest = _FORGIVEN.sub(" ", headline) if resolved else headline
    if _UNDONE.search(headline) or _BAD.search(rest):
        return True
    return signal.category not in _USUALLY_GOOD and (not resolved or _OPEN.search(headline) is not None)
