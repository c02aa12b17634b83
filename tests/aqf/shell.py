"""Runs `aqf` in the process of the test, which is quicker than one of its own."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aqf.cli import main


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Shell:
    """Runs the commands of one group."""

    group: str
    home: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Done:
        self.monkeypatch.setenv("AQF_HOME", str(self.home))
        self.monkeypatch.setenv("AQF_KEEP_SERVER", "1")
        self.monkeypatch.setattr(sys, "argv", ["aqf", self.group, *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, *self.capsys.readouterr())

    def answer(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)
