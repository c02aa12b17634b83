"""Options in sections: what a command with many of them shows as help.

Hides how click writes help. Promises that every option is shown once, in its section, and both in the order of their
declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
_LAST = "Other"


class SectionedOption(click.Option):
    """An option that belongs to a section."""

    def __init__(self, *arguments: Any, section: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.section = section


class SectionedGroup(click.Group):
    """A group of commands whose own options are shown in sections; those without one come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section, then the commands."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", _LAST), []).append(record)
        for name in [*(name for name in sections if name != _LAST), _LAST]:
            if name in sections:
                with formatter.section(name):
                    formatter.write_dl(sections[name])
        self.format_commands(ctx, formatter)


def option_of(section: str) -> Callable[..., Callable[[_Command], _Command]]:
    """Return what `click.option` is, for the options of a section."""

    def option(*names: str, **more: Any) -> Callable[[_Command], _Command]:
        return click.option(*names, cls=SectionedOption, section=section, **more)

    return option
