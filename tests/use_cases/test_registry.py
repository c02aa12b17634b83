import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import use_cases
from core.errors import ConfigurationError
from use_cases import StrategyUseCase, list_use_cases, load_use_case, registry

IMPORT = "from use_cases.equity_momentum.pipeline import EquityMomentum\n"
TWO = f"{IMPORT}class A(EquityMomentum): ...\nclass B(EquityMomentum): ...\n"
NONE = f"{IMPORT}from use_cases.base import StrategyUseCase\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose use cases are found beside the ones that ship."""
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(use_cases, "__path__", [*use_cases.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("use_cases.two", "use_cases.none", "use_cases.mine"))]:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "pipeline.py").write_text(text)


def test_the_use_cases_that_ship_are_listed_and_loaded() -> None:
    assert "equity_momentum" in list_use_cases()
    case = load_use_case("equity_momentum")
    assert isinstance(case, StrategyUseCase)
    assert case.name == "equity_momentum"


@pytest.mark.parametrize("name", ["", "nothing", "../aqf", "base"])
def test_an_unknown_use_case_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no use case {name!r}; there are equity_momentum") as refused:
        load_use_case(name)
    assert "\n" not in str(refused.value)


def test_a_folder_of_ones_own_is_found(folder: Path) -> None:
    write(folder, "mine", f"{IMPORT}class A(EquityMomentum): ...")
    assert list_use_cases() == ("mine",)
    assert type(load_use_case("mine")).__name__ == "A"


@pytest.mark.parametrize(("name", "text", "count"), [("two", TWO, 2), ("none", NONE, 0)])
def test_a_pipeline_defines_one_use_case(folder: Path, name: str, text: str, count: int) -> None:
    write(folder, name, text)
    with pytest.raises(
        ConfigurationError, match=rf"{name}/pipeline.py must define one subclass of StrategyUseCase, has {count}"
    ):
        load_use_case(name)
