"""The `aqf` command: names its subcommands and turns errors into one line and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted. Importing this module imports nothing but click,
so that `aqf --help` answers at once; a subcommand imports what it uses when it runs.
"""

from __future__ import annotations

import sys

import click

from aqf.commands.backtest import backtest
from aqf.commands.calibrate import calibrate
from aqf.commands.data import data
from aqf.commands.database import db
from aqf.commands.demo import demo
from aqf.commands.doctor import doctor
from aqf.commands.embed import embed
from aqf.commands.features import features
from aqf.commands.research import plan, resume, runs, show
from aqf.commands.trade import trade
from aqf.commands.worker import worker


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from core.provenance import code_version

        click.echo(f"aqf {code_version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and exit."
)
def aqf() -> None:
    """Let an agent find, test and remember predictive signals, and tell the truth about them.

    \b
    aqf demo                                       real research on twenty real stocks, in about a minute
    aqf plan "Is there a short-horizon reversal?"  a question of your own
    aqf data import prices.csv --name mine         data of your own
    aqf trade --once                               let the trading agents decide on what waits, on paper
    """


for command in (demo, plan, runs, show, resume, features, embed, backtest, trade, calibrate, data, db, doctor, worker):
    aqf.add_command(command)


def main() -> None:
    """Run the command line; every failure that was foreseen is one line on standard error."""
    from core.errors import AQFError

    try:
        sys.exit(aqf(standalone_mode=False) or 0)  # click hands back the code of a command that ended itself
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        remedy = f" See `{context.command_path} --help`." if context is not None else ""
        click.echo(f"aqf: {error.format_message()}{remedy}", err=True)
        sys.exit(error.exit_code)
    except AQFError as error:
        click.echo(f"aqf: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "aqf: interrupted; what was done is kept. `aqf runs` names a run of research and `aqf resume` continues it; "
            "anything else is continued by giving the command again.",
            err=True,
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
