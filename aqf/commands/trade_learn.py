"""`aqf trade learn`: have Apollo read papers, bring the ticker map up to date, and write the digest of the day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aqf import screen
from aqf.commands.research import as_json

_SHOWN = 20


@click.command(
    epilog="""\b
Examples:
  aqf trade learn --papers papers/             .md and .txt files, and answers of arXiv (.xml)
  aqf trade learn --arxiv                      the newest papers on trading news; wants AQF_CONTACT to be set
  aqf trade learn --ticker-map suppliers.csv   supplier_name,ticker,exchange
  aqf trade learn --digest                     how trades of the last 30 days ended, now instead of tomorrow"""
)
@click.option("--papers", type=click.Path(file_okay=False, path_type=Path), help="Folder of papers to keep.")
@click.option("--arxiv", is_flag=True, help="Keep the newest papers at arXiv.")
@click.option(
    "--ticker-map", type=click.Path(dir_okay=False, path_type=Path), help="CSV file: under which tickers suppliers trade."
)
@click.option("--digest", is_flag=True, help="Write the digest of this day, again if there is one.")
@as_json
def learn(papers: Path | None, arxiv: bool, ticker_map: Path | None, digest: bool, as_json: bool) -> None:
    """Keep what the trading agents look up: papers, tickers of suppliers, how trades ended.

    Papers and digest go into the knowledge base, from which the model is given what is near to a signal. Doing it again changes
    nothing but what is new.
    """
    if not (papers or arxiv or ticker_map or digest):
        raise click.UsageError("say what: --papers FOLDER, --arxiv, --ticker-map FILE or --digest.")
    from contextlib import ExitStack

    from agents.trading.apollo import ARXIV_PATH, ARXIV_PAUSE_SECONDS, ARXIV_SITE, Apollo, ApolloConfig
    from agents.trading.desk_opening import user_agent
    from agents.trading.web import Web, WebConfig
    from core.clock import SystemClock
    from core.settings import Settings
    from core.store import open_store

    settings = Settings.load()
    if arxiv:
        settings.require_contact()
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        config = ApolloConfig(arxiv_url=f"{settings.arxiv_url or ARXIV_SITE}{ARXIV_PATH}")
        apollo = Apollo(store.trading, store.trade_log, store.knowledge, config, SystemClock())
        if papers is not None:
            with screen.counting(f"reading {papers}", "papers", quiet=as_json) as on_progress:
                found["papers"] = apollo.read_literature(papers, on_progress)
        if arxiv:
            web = stack.enter_context(Web(WebConfig(user_agent=user_agent(settings), seconds_between=ARXIV_PAUSE_SECONDS)))
            with screen.counting("asking arXiv", "topics", quiet=as_json) as on_progress:
                found["arxiv"] = apollo.fetch_literature(web, on_progress)
        if ticker_map is not None:
            update = apollo.read_ticker_map(ticker_map)
            changed = [{"name": name, "before": before, "now": now} for name, before, now in update.changed]
            found["ticker_map"] = {"written": update.n_written, "changed": changed}
        if digest:
            written = apollo.write_digest()
            document = written.document
            found["digest"] = {
                "decisions": written.n_traces,
                "approved": written.n_approved,
                "doc_id": None if document is None else document.doc_id,
                "text": None if document is None else document.document_text,
            }
            needed = config.digest_min_traces, config.digest_min_approved
    if as_json:
        screen.print_json(found)
        return
    if papers is not None:
        click.echo(f"{found['papers']} papers of {papers} are in the knowledge base.")
    if arxiv:
        click.echo(f"{found['arxiv']} papers of arXiv are in the knowledge base.")
    if ticker_map is not None:
        click.echo(f"{found['ticker_map']['written']} names are in the ticker map; {len(changed)} had another ticker before.")
        for line in changed[:_SHOWN]:
            click.echo(f"  {line['name']}: {line['before']} -> {line['now']}")
        if len(changed) > _SHOWN:
            click.echo(f"  and {len(changed) - _SHOWN} more: --json lists all")
    if digest:
        text = found["digest"]["text"]
        n_traces, n_approved = found["digest"]["decisions"], found["digest"]["approved"]
        few = f"Nothing to digest yet: {n_traces} decisions in 30 days, {n_approved} approved; "
        click.echo(f"{few}it takes {needed[0]} and {needed[1]}." if text is None else text)
