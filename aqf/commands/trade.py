"""`aqf trade`: let the trading agents decide."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aqf import screen
from aqf.commands.research import as_json
from aqf.commands.sections import SectionedGroup, option_of
from aqf.commands.trade_ab import ab
from aqf.commands.trade_alerts import alerts
from aqf.commands.trade_learn import learn
from aqf.commands.trade_records import COMMANDS, end_of
from aqf.commands.trade_replay import replay

if TYPE_CHECKING:
    from agents.trading.feeds import Dropped
    from agents.trading.running import Round

_MOST_REASONS, _MOST_REASON, _MOST_KEYS, _MOST_KEY = 3, 240, 5, 60

_rounds, _account, _news = option_of("Rounds"), option_of("Account and prices"), option_of("News")
_rules, _people = option_of("Rules"), option_of("Who is told")


def _check_news(_: click.Context, __: click.Parameter, given: tuple[Path, ...]) -> tuple[Path, ...]:
    """Refuse a file that is not there at the start; one that goes missing later is a source that fails."""
    for path in given:
        if not path.is_file():
            raise click.BadParameter(f"{path} must be a CSV or JSONL file, and there is none.")
    return given


def _read_feeds(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Read NAME=URL, of each one."""
    from agents.trading.feeds import EDGAR
    from agents.trading.web import is_address

    feeds: dict[str, str] = {}
    for text in given:
        name, sign, url = (part.strip() for part in text.partition("="))
        if not sign or not name or "/" in name:
            raise click.BadParameter(f"must be NAME=URL, such as wire=https://example.org/rss, was {text!r}.")
        if not is_address(url):
            raise click.BadParameter(f"{name} must have an address that begins with http:// or https://, was {url!r}.")
        if name == EDGAR:
            raise click.BadParameter(f"{EDGAR} is the name of the SEC's filings: say --edgar, or choose another name.")
        if name in feeds:
            raise click.BadParameter(f"{name} is given twice: what is new is told by name and key, so each needs its own.")
        feeds[name] = url
    return tuple(feeds.items())


@click.group(
    cls=SectionedGroup,
    invoke_without_command=True,
    epilog="""\b
Examples:
  aqf trade --once --data prices.csv --news news.csv      decide on what is new and what waits, once
  aqf trade --loop 900 --data prices.csv --edgar          every 15 minutes while the exchange is open
  aqf trade --loop 900 --data prices.csv --feed wire=https://example.org/rss
  aqf trade --loop 900 --data prices.csv --use-case equity_momentum
  aqf trade --once --broker alpaca --data alpaca --data indices.csv
  aqf trade learn --papers papers/                        what the model reads before it judges
  aqf trade alerts --test                                 does an alert reach you?
  aqf trade halt --reason "looking into it"               nothing new until `aqf trade resume`
  aqf trade replay tests/replay/market.csv                judge recorded rows, and compare""",
)
@_rounds("--once", is_flag=True, help="Do one round: what was filled, the book, the signals that wait.")
@_rounds("--loop", "every", type=click.FloatRange(1, 86_400), metavar="SECONDS", help="Rounds, in sessions of the exchange.")
@_rounds("--rounds", type=click.IntRange(1), metavar="N", help="End --loop after so many rounds.")
@_rounds("--calendar", default="XNYS", show_default=True, help="Exchange calendar of --loop.")
@_account(
    "--broker",
    default="paper",
    show_default=True,
    type=click.Choice(["paper", "alpaca", "ib"]),
    help="Whose account: on paper in the store, at Alpaca, or behind TWS or IB Gateway.",
)
@_account(
    "--data",
    multiple=True,
    default=("packaged",),
    show_default=True,
    help="Prices: `packaged`, `alpaca`, `ib`, a CSV or Parquet file, or an address with {symbol}; the first to know a symbol.",
)
@_account(
    "--cash",
    type=click.FloatRange(0, 1e12, min_open=True),
    default=250_000,
    show_default=True,
    metavar="AMOUNT",
    help="Of a new account of the paper broker.",
)
@_account(
    "--expiry",
    "expiry_minutes",
    type=click.FloatRange(1, 20_000),
    default=120,
    show_default=True,
    metavar="MINUTES",
    help="How long an entry waits; below a day (1440) it ends with the session. Daily bars need 6000.",
)
@_news(
    "--news",
    multiple=True,
    type=click.Path(path_type=Path),
    callback=_check_news,
    help="CSV or JSONL file of news; may be repeated.",
)
@_news("--feed", "feeds", multiple=True, callback=_read_feeds, metavar="NAME=URL", help="RSS or Atom feed; may be repeated.")
@_news("--edgar", is_flag=True, help="The newest 8-K filings at the SEC, which wants AQF_CONTACT to be set.")
@_news(
    "--use-case", "cases", multiple=True, metavar="NAME", help="A use case that tells of the prices of --data; may be repeated."
)
@_rules("--lists", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Sanctions lists.  [AQF_HOME/sanctions]")
@_rules("--fictitious-lists", is_flag=True, help="Screen against made-up lists: for trying out, on paper.")
@_rules(
    "--universe",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Trade these tickers alone: one a line and, behind a comma, its sector.  [what ticker map or prices know]",
)
@_rules("--sizing", default="ramp", show_default=True, type=click.Choice(["ramp", "kelly", "probation", "fixed"]))
@_rules("--rules", "rule_mode", is_flag=True, help="Ask no model, even where one is configured.")
@_people("--webhook", help="Address that alerts are posted to.  [AQF_ALERT_WEBHOOK_URL]")
@as_json
@click.pass_context
def trade(
    click_context: click.Context,
    once: bool,
    every: float | None,
    rounds: int | None,
    calendar: str,
    broker: str,
    data: tuple[str, ...],
    cash: float,
    expiry_minutes: float,
    news: tuple[Path, ...],
    feeds: tuple[tuple[str, str], ...],
    edgar: bool,
    cases: tuple[str, ...],
    lists: Path | None,
    fictitious_lists: bool,
    universe: Path | None,
    sizing: str,
    rule_mode: bool,
    webhook: str | None,
    as_json: bool,
) -> None:
    """Decide on the signals that wait in the store, and look after what was decided before, on paper unless --broker says more.

    Without sanctions lists, without a VIX or a price nothing is traded: each refusal says what bound. One round whose broker
    does not answer ends with 1; a loop goes on and asks again.
    """
    if click_context.invoked_subcommand is not None:
        if once or every is not None:
            raise click.UsageError(f"`{click_context.invoked_subcommand}` goes without --once and --loop.")
        return
    if once == (every is not None):
        raise click.UsageError("give --once, --loop SECONDS, or a command: `aqf trade --help` lists them.")
    import time
    from contextlib import ExitStack

    with ExitStack() as stack:
        with screen.working("opening the desk", quiet=as_json):
            from agents.brokers.opening import BrokerKind
            from agents.trading.desk_opening import DeskOptions, open_desk
            from agents.trading.sessions import ExchangeSessions
            from core.clock import SystemClock
            from core.settings import Settings
            from use_cases.live import UseCaseFeed
            from use_cases.registry import load_use_case

            chosen = [load_use_case(name) for name in dict.fromkeys(cases)]
            for case in chosen:
                case.check_live()  # told before anything is opened
            options = DeskOptions(
                broker=BrokerKind(broker),
                data=data,
                news=news,
                feeds=feeds,
                edgar=edgar,
                lists=lists,
                fictitious_lists=fictitious_lists,
                universe=universe,
                sizing=sizing,
                rule_mode=rule_mode,
                expiry_minutes=expiry_minutes,
                cash=cash,
                webhook_url=webhook,
            )
            clock, hours = SystemClock(), ExchangeSessions(calendar)
            opened = open_desk(
                options,
                Settings.load(),
                clock=clock,
                hours=hours,
                tell=lambda line: screen.say(f"  {line}"),
                producers=lambda context: [UseCaseFeed(case, context.store, context.data, clock) for case in chosen],
            )
            desk = stack.enter_context(opened)
        if every is None:
            done = desk.round()
            _tell(done, as_json=as_json)
        else:
            desk.trade(
                hours=hours,
                every_seconds=every,
                sleep=time.sleep,
                on_round=lambda done: _tell(done, as_json=as_json),
                on_wait=lambda opening: screen.say(f"  {calendar} is closed until {opening:%Y-%m-%d %H:%M} UTC"),
                most=rounds,
            )
        desk.look()
        if every is None and not done.broker_reachable:
            click_context.exit(1)


for command in (ab, alerts, learn, replay, *COMMANDS):
    trade.add_command(command)


def _tell(done: Round, *, as_json: bool) -> None:
    valuation = done.valuation
    if as_json:
        click.echo(
            json.dumps(
                {
                    "at": done.at.isoformat(),
                    "equity": valuation.equity,
                    "cash": valuation.cash,
                    "drawdown": valuation.drawdown,
                    "unpriced": list(valuation.unpriced),
                    "broker_reachable": done.broker_reachable,
                    "traces": [trace.to_dict() for trace in done.traces],
                    "dropped": [
                        {"source": source, "reason": reason, "n": len(keys), "keys": keys[:_MOST_KEYS]}
                        for (source, reason), keys in _group(done.dropped).items()
                    ],
                }
            )
        )
        return
    worth = "unknown" if valuation.equity is None else f"{valuation.equity:,.2f}"
    ends = Counter(end_of(trace) for trace in done.traces)
    click.echo(f"{done.at:%Y-%m-%d %H:%M} UTC: equity {worth}, {len(done.traces)} signals decided")
    for (stage, constraint), n in ends.most_common():
        click.echo(f"  {n:5d}  {stage}{f': {constraint}' if constraint else ''}")
    for line in _dropped_lines(done.dropped):
        click.echo(line)


def _dropped_lines(dropped: Sequence[Dropped]) -> Iterator[str]:
    """Tell source by source how much of it was not kept, and for the reasons that most of it has, why."""
    groups = _group(dropped)
    for source, n in Counter(one.source for one in dropped).items():
        yield f"  {n:5d}  of {source} dropped:"
        reasons = [(reason, keys) for (of, reason), keys in groups.items() if of == source]
        reasons.sort(key=lambda found: -len(found[1]))
        for reason, keys in reasons[:_MOST_REASONS]:
            where = f"{_on_a_line(keys[0], _MOST_KEY)}: " if len(keys) == 1 else ""
            yield f"         {len(keys):5d}  {where}{_on_a_line(reason, _MOST_REASON)}"
        if left := sum(len(keys) for _, keys in reasons[_MOST_REASONS:]):
            yield f"                and {left} more"


def _group(dropped: Sequence[Dropped]) -> dict[tuple[str, str], list[str]]:
    """Return the keys of what was dropped, by source and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in dropped:
        groups.setdefault((one.source, one.reason), []).append(one.key)
    return groups


def _on_a_line(text: str, most: int) -> str:
    """Return text of others without what could steer a terminal."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
