import socket
import subprocess
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from core.errors import MissingDataError
from core.market import Panel, check_panel, dataset_info, list_datasets, load_dataset

NAMES = ("sp500_20", "sp500_index", "factors_5", "sp500", "nasdaq", "vix")
NEW_YORK = ZoneInfo("America/New_York")


def test_every_packaged_data_set_is_listed_with_its_caveats() -> None:
    infos = list_datasets()
    assert tuple(info.name for info in infos) == NAMES
    for info in infos:
        assert info == dataset_info(info.name)
        assert info.frequency == "1d"
        assert info.caveats and info.license and info.source and info.description


def test_the_twenty_stocks_say_that_they_survived() -> None:
    caveats = " ".join(dataset_info("sp500_20").caveats)
    for word in ("survivorship", "adjusted closes only", "volume", "dividends", "rounded"):
        assert word in caveats


@pytest.mark.parametrize(
    ("name", "shape", "first", "last", "content"),
    [
        (
            "sp500_20",
            (8313, 20),
            "1990-01-02",
            "2022-12-28",
            "19c83255668994199a5a6272da9f98b347936761575edc3f600c4a2169d41d47",
        ),
        (
            "sp500_index",
            (8313, 1),
            "1990-01-02",
            "2022-12-28",
            "3538993f5f6a4ec4afabc0a889d50633e1989826569646bfb8ca5f3cd278f104",
        ),
        (
            "factors_5",
            (2264, 5),
            "2014-01-02",
            "2022-12-28",
            "cf1552401f1c8dbe17c3d34be7bf3272e052b1ee79ae09455b494f725b9898bd",
        ),
        ("sp500", (5031, 1), "1999-01-04", "2018-12-31", "42e3915830db3fba57aacaf22afe43a259a99d618360778cc1a01dd9eb396855"),
        ("nasdaq", (5031, 1), "1999-01-04", "2018-12-31", "322853ef9751ad7f9bfbf4d337086d708411f2f8fa896007427e5f5d1516b7a7"),
        ("vix", (1259, 1), "2014-01-03", "2019-01-03", "49e62a6d38256f759425ee153af9a4a2711282c2d63538243b72d1694fb30aa8"),
    ],
)
def test_packaged_data_is_what_it_was(name: str, shape: tuple[int, int], first: str, last: str, content: str) -> None:
    panel = load_dataset(name)
    assert panel.name == name
    assert panel.shape == shape
    assert not np.isnan(panel.close).any()
    assert [panel.index[0].date(), panel.index[-1].date()] == [date.fromisoformat(first), date.fromisoformat(last)]
    assert panel.content_sha256() == content


@pytest.mark.parametrize("name", NAMES)
def test_packaged_data_passes_the_checks_of_a_file(name: str) -> None:
    check_panel(load_dataset(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_bar_is_stamped_with_the_close_of_new_york(name: str) -> None:
    close = time(16, 15) if name == "vix" else time(16)
    told = {stamp.astimezone(NEW_YORK).time() for stamp in load_dataset(name).index.to_pydatetime()}
    assert told == {close}


def test_the_close_moves_by_an_hour_with_daylight_saving_time() -> None:
    stamps = set(load_dataset("sp500_index").index.to_pydatetime())
    assert datetime(2022, 3, 11, 21, tzinfo=UTC) in stamps, "the Friday before the clocks went forward"
    assert datetime(2022, 3, 14, 20, tzinfo=UTC) in stamps, "the Monday after"
    assert datetime(2006, 4, 3, 20, tzinfo=UTC) in stamps, "before 2007 summer time began in April"
    assert datetime(2006, 3, 31, 21, tzinfo=UTC) in stamps


def test_the_stocks_are_the_twenty_that_skfolio_ships() -> None:
    panel = load_dataset("sp500_20")
    assert " ".join(panel.symbols) == "AAPL AMD BAC BBY CVX GE HD JNJ JPM KO LLY MRK MSFT PEP PFE PG RRC UNH WMT XOM"
    assert panel.fields == ("close",)
    assert panel.close[0, 0] == 0.264


def test_two_packages_agree_on_the_index_so_it_is_a_price_index_in_both() -> None:
    longer, shorter = load_dataset("sp500_index"), load_dataset("sp500")
    both = pd.DataFrame({"longer": longer.frame()["SP500"], "shorter": shorter.frame()["SP500"]}).dropna()
    assert len(both) == 5031
    np.testing.assert_allclose(both["longer"], both["shorter"], rtol=1e-7)


def test_the_index_bars_of_arch_need_no_adjustment() -> None:
    from arch.data import nasdaq, sp500

    for module in (nasdaq, sp500):
        frame = module.load()
        assert (frame["Adj Close"] == frame["Close"]).all()


def test_a_volume_of_zero_in_an_index_is_missing() -> None:
    panel = load_dataset("nasdaq")
    missing = panel.index[np.isnan(panel.get("volume")[:, 0])]
    assert [str(stamp.date()) for stamp in missing] == ["2015-05-12", "2018-01-09"]


def test_days_without_a_vix_are_left_out() -> None:
    assert date(2014, 1, 20) not in {stamp.date() for stamp in load_dataset("vix").index}


@pytest.mark.parametrize("ask", [load_dataset, dataset_info])
def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(ask: object) -> None:
    with pytest.raises(MissingDataError, match=r"no packaged data set `sp500_2`; did you mean `sp500_20`\?") as refusal:
        ask("sp500_2")  # type: ignore[operator]
    for name in NAMES:
        assert name in str(refusal.value)


def test_a_name_far_from_all_is_answered_with_the_list_alone() -> None:
    with pytest.raises(MissingDataError, match=r"no packaged data set `qqqqqqq`; There are sp500_20"):
        load_dataset("qqqqqqq")


def test_importing_the_market_imports_no_package_that_carries_data() -> None:
    code = "import sys, core.market; print(sorted({'skfolio', 'arch', 'sklearn', 'statsmodels'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_loading_touches_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*args: object, **kwargs: object) -> None:
        raise AssertionError("a data set asked for the network")

    monkeypatch.setattr(socket.socket, "connect", forbid)
    for name in NAMES:
        assert isinstance(load_dataset(name), Panel)
