"""`aqf trade alerts`: over which channels does a person hear of changes, and do they arrive?"""

from __future__ import annotations

import click

from aqf import screen
from aqf.commands.research import as_json


@click.command(epilog="Example:  aqf trade alerts --test")
@click.option("--webhook", help="Address that alerts are posted to.  [AQF_ALERT_WEBHOOK_URL]")
@click.option("--test", "is_test", is_flag=True, help="Send one alert over each channel.")
@as_json
@click.pass_context
def alerts(click_context: click.Context, webhook: str | None, is_test: bool, as_json: bool) -> None:
    """Name the channels of alerts; with --test, say of each whether an alert was taken, or why not.

    Exit code 1 when one was not.
    """
    from agents.trading.alerts import Alert, configured_channels
    from core.clock import SystemClock
    from core.errors import AQFError
    from core.settings import Settings

    alert = Alert(subject="aqf", state="a test", text="nothing happened", at=SystemClock().now())
    found: dict[str, str] = {}
    has_failed = False
    for channel in configured_channels(Settings.load(), webhook_url=webhook):
        found[channel.name] = "configured"
        if is_test:
            try:
                channel.send(alert)
            except (AQFError, OSError) as error:
                found[channel.name], has_failed = f"not sent: {error}", True
            else:
                found[channel.name] = "sent"
    if as_json:
        screen.print_json(found)
    else:
        for name, state in found.items():
            click.echo(f"{name}: {state}")
    if has_failed:
        click_context.exit(1)
