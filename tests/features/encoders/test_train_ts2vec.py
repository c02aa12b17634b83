import numpy as np
import pytest
from click.testing import CliRunner

from features.encoders import contrastive, load_encoder
from features.encoders.train_ts2vec import cut_training_windows, main
from features.windows import rolling_windows, steady_windows
from tests.features.encoders.members import PANEL, needs_torch


@pytest.mark.parametrize(("steady", "cut"), [(False, rolling_windows), (True, steady_windows)])
def test_training_windows_end_in_the_first_part_of_what_is_not_sealed(steady, cut):
    got = cut_training_windows(PANEL, window=64, stride=3, fraction=0.6, steady=steady)
    every = cut(PANEL, window=64, stride=3)
    known = every.end < 432  # three fifths of the 720 bars before the sealed fifth of 900
    assert 0 < known.sum() < len(every)
    np.testing.assert_array_equal(got.values, every.values[known])
    assert got.end.max() <= 431


def test_without_torch_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(contrastive, "find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["--out", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "pip install" in done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_torch
@pytest.mark.parametrize("causal", [False, True])
def test_the_command_writes_the_same_encoder_twice(causal, tmp_path):
    options = ["--dataset", "factors_5", "--window", "32", "--hidden", "4", "--depth", "2", "--iterations", "2", "--out"]
    for name in ("first", "second"):
        done = CliRunner().invoke(main, [*options, str(tmp_path / name), *(["--causal"] if causal else [])])
        assert done.exit_code == 0, done.output
        assert load_encoder(tmp_path / name).sha256 in done.output
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first", "second"]
