import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest.markets import planted
from core.market import Panel
from core.settings import Settings
from core.store import open_store
from core.store.artifacts import FileArtifactStore
from features.alphas import ALPHA158
from features.expression import parse
from features.leaks import Leak, LeakReport
from features.snapshots import load_snapshot
from features.study import study
from tests.aqf.shell import Shell
from tests.conftest import make_reachable_folder, sweep
from tests.packages import installed
from use_cases.supplier_disruption.features import FEATURES as SHIPPED

FORMULA = "-ts_sum(returns, 3)"


@pytest.fixture
def shell(panel: Panel, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell("features", home, monkeypatch, capsys)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose server stays up between commands."""
    folder = make_reachable_folder()
    yield folder / "home"
    sweep(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def panel(home: Path) -> Panel:
    """What a researcher may see of the data set `mine`, beside a feature in the registry."""
    expression = parse(FORMULA)
    with open_store(Settings(home=home, keep_server=True)) as store:
        mine = store.service.import_dataset(
            planted(seed=1, sharpe=3.0, n_assets=8, n_bars=700), name="mine", source="made up", synthetic=True
        )
        store.service.propose_feature(
            {
                "name": "dip",
                "expression": expression.canonical,
                "expression_sha256": expression.sha256,
                "lookback": expression.lookback,
                "family": "found",
                "hypothesis": "Dips rebound.",
            }
        )
        return store.researcher.load_panel(mine)


def test_list_joins_known_hypotheses_with_the_registry(shell: Shell, panel: Panel) -> None:
    rows = {row["name"]: row for row in shell.answer("list", "--dataset", "mine")}
    assert rows["dip"]["status"] == "proposed"
    assert rows["dip"]["expression_sha256"] == parse(FORMULA).sha256
    assert rows["reversal_5"]["status"] == "not tried"
    assert all(set(row["needs"]) <= set(panel.fields) for row in rows.values())
    shown = shell.run("list", "--family", "found")
    assert "1 features" in shown.stdout
    assert FORMULA in shown.stdout
    refused = shell.run("list", "--family", "fond")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Did you mean found?" in refused.stderr


def test_show_measures_before_the_seal_and_writes_pictures_and_page(shell: Shell, panel: Panel, tmp_path: Path) -> None:
    found = shell.answer("show", "dip", "--dataset", "mine", "--out", str(tmp_path / "out"))
    expected = study(FORMULA, panel).to_dict()
    for key in ("expression_sha256", "dataset_sha256", "horizons", "years", "autocorrelation", "turnover", "coverage"):
        assert found[key] == expected[key]
    assert found["last_bar"] < found["sealed_from"]
    assert (found["title"], found["status"], found["hypothesis"]) == ("dip", "proposed", "Dips rebound.")
    assert "ts_sum(·, 3)" in found["tree"]
    names = ["tree.png", "ic_decay.png", "quantiles.png", "persistence.png", "ic_by_year.png", "coverage.png", "study.html"]
    assert [Path(file).name for file in found["files"]] == names
    assert all(Path(file).parent == tmp_path / "out" and Path(file).is_file() for file in found["files"])


def test_show_prints_tree_figures_and_what_to_beware_of(shell: Shell, panel: Panel) -> None:
    shown = shell.run("show", "-rank(dip) * 2", "--dataset", "mine", "--quantiles", "3")
    assert shown.returncode == 0, shown.stderr
    for words in ("└─ ts_sum(·, 3)", "all before the seal", "its rank IC is optimistic", "rank autocorrelation:", "turnover:"):
        assert words in shown.stdout
    expected = study("-rank(-ts_sum(returns, 3)) * 2", panel, n_quantiles=3)
    for row in expected.horizons:
        assert f"{row.rank_ic:+.4f}" in shown.stdout
    page = Path(shown.stdout.partition("Page: ")[2].partition(",")[0])
    assert page.is_relative_to(shell.home / "studies")
    assert page.is_file()
    assert "measuring over 560 bars" in shown.stderr


def test_snapshot_is_read_back_by_its_address(shell: Shell, panel: Panel) -> None:
    saved = shell.answer("snapshot", "dip", "--dataset", "mine")
    artifacts = FileArtifactStore(shell.home / "artifacts")
    assert load_snapshot(saved["uri"], artifacts, expression=FORMULA, panel=panel).snapshot.to_dict() == saved
    assert saved["uri"] in shell.run("snapshot", FORMULA, "--dataset", "mine").stdout


def test_check_passes_a_causal_expression(shell: Shell, panel: Panel) -> None:
    found = shell.answer("check", "close / ts_mean(close, 5)", "--dataset", "mine", "--cuts", "3")
    assert (found["passed"], found["n_checks"], found["leaks"]) == (True, 6, [])


def test_check_ends_with_1_when_there_is_nothing_to_test(shell: Shell) -> None:
    done = shell.run("check", "delay(close, 2000)", "--dataset", "mine")
    assert done.returncode == 1
    assert "nothing was tested: the feature has no value on these bars" in done.stdout


def test_check_ends_with_1_when_there_is_a_leak(shell: Shell, panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = Leak(bar=3, timestamp=panel.index[3], symbol="A", size=0.5, cut=4, change="cut")
    report = LeakReport(passed=False, n_checks=2, n_values=9, leaks=(leak,))
    monkeypatch.setattr("features.leaks.check_leaks", lambda *_, **__: report)
    done = shell.run("check", "dip", "--dataset", "mine")
    assert done.returncode == 1
    assert "leak: A at bar 3" in done.stdout
    done = shell.run("check", "dip", "--dataset", "mine", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["leaks"][0]["symbol"] == "A"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["show", "dip", "--dataset", "mien"], 1, "Did you mean mine?"),
        (["show", "ts_men(close, 5)", "--dataset", "mine"], 1, "did you mean ts_mean?"),
        (["show", "delay(close, -1)", "--dataset", "mine"], 1, "only positive lags"),
        (["show", "ts_mean(close, 2000)", "--dataset", "mine"], 1, "It looks back 1999 bars, there are 560"),
        (["show", "dip", "--dataset", "mine", "--quantiles", "9"], 1, "must be in 2..8, was 9"),
        (["show", "dip", "--quantiles", "1"], 2, "features show --help`"),
        (["show"], 2, "Missing argument 'FEATURE'"),
        (["check", "dip", "--cuts", "0"], 2, "Invalid value for '--cuts'"),
        (["explain", "dip", "more"], 2, "unexpected extra argument"),
        (["explain", "reversal_55"], 1, "did you mean reversal_5?"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(shell: Shell, arguments: list[str], code: int, text: str) -> None:
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    error = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert len(error) == 1
    assert text in error[0]


def test_operators_and_explain_need_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell("features", tmp_path / "home", monkeypatch, capsys)
    language = shell.answer("operators")
    assert len(language["operators"]) >= 60
    assert {"write": "ts_mean(panel, window)", "meaning": "mean of the window"} in language["operators"]
    assert all(row["is"] for row in language["indicators"])
    assert "ts_mean(panel, window)" in shell.run("operators").stdout
    explained = shell.answer("explain", "-pct_change(close, 5)")
    assert explained["name"] == "reversal_5"
    assert explained["sentence"] == "Minus the relative change over 5 bars of close."
    assert "└─ low" in shell.run("explain", "-high / low").stdout
    assert not (tmp_path / "home").exists()


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    with installed(tmp_path) as file:
        yield file


def test_qlibs_features_are_listed_shown_and_built_on_by_name(shell: Shell, panel: Panel, tmp_path: Path) -> None:
    rows = shell.answer("list", "--family", "alpha158", "--dataset", "mine")
    assert [row["name"] for row in rows] == list(ALPHA158)
    found = shell.answer("show", "KMID + rank(MA5)", "--dataset", "mine", "--out", str(tmp_path / "out"))
    expected = parse("(close - open) / open + rank(ts_mean(close, 5) / close)")
    assert found["expression_sha256"] == expected.sha256
    assert shell.answer("explain", "MA5")["name"] == "MA5"
    assert shell.answer("check", "VSUMD10", "--dataset", "mine", "--cuts", "2")["passed"]


def test_plugins_are_listed_with_their_kind(shell: Shell, panel: Panel, package: Path) -> None:
    rows = {row["name"]: row for row in shell.answer("list") if row["kind"] == "plugin"}
    of_the_package = {"careless", "dip_in_python", "level", "news", "tomorrow"}
    assert set(rows) == of_the_package | {feature.name for feature in SHIPPED}
    assert list(rows) == sorted(rows)
    assert rows["dip_in_python"]["expression"].startswith("plugin:dip_in_python@1#")
    assert rows["dip_in_python"]["needs"] == ["close"]
    explained = shell.answer("explain", "dip_in_python")
    assert (explained["version"], explained["lookback"], explained["columns"]) == ("1", 5, ["close"])
    text = shell.run("explain", "tomorrow").stdout
    assert "it reads close, and needs all of history" in text


def test_a_plugin_is_checked_against_its_contract(shell: Shell, panel: Panel, package: Path) -> None:
    found = shell.answer("check", "dip_in_python", "--dataset", "mine")
    assert found["passed"]
    assert {check["name"] for check in found["checks"]} >= {"lookback", "no_leak", "determinism"}
    leaking = shell.run("check", "tomorrow", "--dataset", "mine", "--json")
    assert leaking.returncode == 1
    assert json.loads(leaking.stdout)["leaks"]
    for name, text in (("tomorrow", "BROKEN  no_leak: leak: "), ("careless", "BROKEN  shape_and_dtype: float64 is expected")):
        broken = shell.run("check", name, "--dataset", "mine")
        assert broken.returncode == 1
        assert f"{name} breaks its contract on mine" in broken.stdout
        assert text in broken.stdout


def test_a_plugin_is_studied_by_its_values_and_kept(shell: Shell, panel: Panel, package: Path, tmp_path: Path) -> None:
    found = shell.answer("show", "dip_in_python", "--dataset", "mine", "--out", str(tmp_path / "out"))
    twin = study("-pct_change(close, 5)", panel).to_dict()
    assert [row["rank_ic"] for row in found["horizons"]] == pytest.approx([row["rank_ic"] for row in twin["horizons"]])
    assert (found["tree"], found["lookback"], found["title"]) == (None, 5, "dip_in_python")
    assert found["expression"].startswith("plugin:dip_in_python@1#")
    assert "tree.png" not in [Path(file).name for file in found["files"]]
    assert "plugin:dip_in_python@1#" in shell.run("show", "dip_in_python", "--dataset", "mine").stdout
    saved = shell.answer("snapshot", "dip_in_python", "--dataset", "mine")
    assert saved["expression"] == found["expression"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["check", "dip_in_python", "--dataset", "mine", "--cuts", "3"], 2, "`--cuts` is for expressions"),
        (["check", "dip_in_pythn"], 1, "Did you mean the plugin dip_in_python?"),
        (["show", "plugin:gap"], 1, "there is no plugin 'gap'. There are careless, dip_in_python"),
        (["show", "news", "--dataset", "mine"], 1, "the plugin news reads events of kind news, and there are none here"),
        (["check", "news", "--dataset", "mine"], 1, "the plugin news reads events of kind news, and there are none here"),
        (["snapshot", "rank(dip_in_python)"], 1, "which no expression can build on"),
    ],
)
def test_bad_use_of_a_plugin_is_one_line_with_a_remedy(
    shell: Shell, panel: Panel, package: Path, arguments: list[str], code: int, text: str
) -> None:
    test_bad_input_is_one_line_with_a_remedy(shell, arguments, code, text)


def test_a_package_that_is_broken_is_named_where_it_matters_and_nowhere_else(shell: Shell, panel: Panel, package: Path) -> None:
    package.write_text("import nothing_of_this_name\n")
    refused = shell.run("list")
    assert refused.returncode == 1
    assert "of house-features cannot be loaded (ModuleNotFoundError" in refused.stderr
    assert shell.answer("check", "reversal_5", "--dataset", "mine")["passed"]
