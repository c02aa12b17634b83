"""Every notebook runs from top to bottom, in a world of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

PROGRAM = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240, resources={"metadata": {"path": sys.argv[2]}}).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        print(output.get("text", ""))
        print(sorted(output.get("data", {})))
"""


SAYS = {
    "01_first_research_run": (
        "Nothing that survives was found among 40 trials",
        "text/html",
        "40 earlier trials on sp500_20 are remembered and will not be repeated",
        "LookAheadError",
    ),
    "02_features": (
        "ExpressionError: unknown operator `ts_men` at column 0 (did you mean ts_mean?)",
        "LookAheadError",
        "text/html",
        "nothing from 2016-05-23 on was read",
        "no leak: the past stayed the same",
        "\nleak: ",
        "rank IC of a leak: +1.00",
        "artifact://feature-snapshots/",
        "refused, differs in expression",
    ),
    "03_backtests": (
        "single run, trials not counted: not evidence of an edge",
        "the trials were not counted",
        "'report.html', 'report.json'",
        "text/html",
        "found among 1 independent trial (trial 1 of the ledger, which holds 1 on sp500_20)",
    ),
}


def test_every_notebook_is_run() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SAYS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_what_it_promises(path: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AQF_", "OPENAI_", "SUPABASE_"))}
    environment |= {"AQF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PROGRAM, str(path), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in SAYS[path.stem]:
        assert words in done.stdout
