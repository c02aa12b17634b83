import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from core.errors import ConfigurationError, DataError, LookAheadError, MissingDataError, ShapeError, StoreConflictError
from core.store.opening import Store
from core.store.records import Dataset
from features.encoders import get_encoder, registry
from features.memory import EMB_TYPE, MemorySpec, Refreshed, refresh, refresh_memory
from features.memory.plan import plan_memory
from features.windows import regime_at, rolling_windows
from tests.features.memory.worlds import STRIDE, WINDOW, build_prices, expected_windows, land, rows_of

SPEC = MemorySpec(encoder="ts2vec", window=WINDOW, stride=STRIDE)
SLOW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_PIECE", 40)


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return land(store)


class Interrupted(Exception):
    pass


def test_each_window_is_stored_with_its_vector_its_regime_and_what_followed(store: Store, dataset: Dataset) -> None:
    done = refresh_memory(store.researcher, dataset, SPEC)
    panel = build_prices()
    visible = int(panel.n_bars * 0.8)
    seen = panel.slice(stop=visible)
    expected = expected_windows(panel, visible)
    rows = {(row["asset_symbol"], row["time_range"].lower): row for row in rows_of(store)}
    assert len(rows) == len(expected) == done.windows == done.written
    assert done.left_out == 4 * len(range(0, visible - WINDOW + 1, STRIDE)) - len(expected) > 0
    assert {symbol for symbol, _, _ in expected} == {"AAA", "BBB", "GAP", "STILL"}
    encoder = get_encoder("ts2vec")
    for number, (symbol, start, end) in enumerate(expected):
        row, column = rows[symbol, panel.index[start]], panel.symbols.index(symbol)
        assert row["time_range"].upper == panel.index[end]
        assert row["emb_version"] == f"ts2vec-1-{encoder.sha256[:12]}-w128-s7-h5-small-v1"
        regime = str(regime_at(seen, [end])[0])
        assert row["regime_tag"] == regime
        assert row["meta"] == {"source": "small", "regime": regime, "window": 128, "in_sample": False, "label_horizon": 5}
        entry, leave = panel.close[end + 1, column], panel.close[end + 6, column]
        if end + 6 < visible and np.isfinite([entry, leave]).all():
            assert row["label"]["forward_return"] == pytest.approx(leave / entry - 1.0)
            returns = np.nan_to_num(panel.close[end - 62 : end + 1, column] / panel.close[end - 63 : end, column] - 1.0)
            spread = np.sqrt((returns**2).mean() * 5)
            t_stat = row["label"]["forward_return"] / spread if spread > 0 else 0.0
            assert row["label"]["t_stat"] == pytest.approx(t_stat)
            assert row["label_end"] == panel.index[end + 6]
        else:
            assert (row["label"], row["label_end"]) == ({}, None)
        if number % 29 == 0:
            alone = rolling_windows(panel.slice(start, end + 1).select([symbol]))
            np.testing.assert_allclose(row["embedding"], encoder.encode(alone)[0], atol=1e-6)
    (version,) = store.service.list_embedding_versions(dataset, EMB_TYPE)
    assert (version["encoder_sha256"], version["trained_until"]) == (encoder.sha256, encoder.trained_until)
    assert (version["status"], version["n_windows"]) == ("active", len(expected))
    assert version["settings"] == {"encoder": "ts2vec", "window": 128, "stride": 7}


def test_windows_that_end_while_the_encoder_still_learned_are_in_sample(store: Store) -> None:
    ends = get_encoder("ts2vec").trained_until
    assert ends == datetime(2005, 10, 21, 20, tzinfo=UTC)
    dataset = land(store, build_prices(400, start="2005-01-03 20:00"), sealed_from=datetime(2006, 4, 3, tzinfo=UTC))
    done = refresh_memory(store.researcher, dataset, MemorySpec(encoder="ts2vec", stride=1))
    marks = {row["time_range"].upper: row["meta"]["in_sample"] for row in rows_of(store)}
    assert ends in marks
    assert all(mark == (end <= ends) for end, mark in marks.items())
    assert 0 < done.in_sample == sum(row["meta"]["in_sample"] for row in rows_of(store)) < done.windows


def test_doing_it_again_changes_nothing_and_announces_nothing(
    store: Store, dataset: Dataset, owner: psycopg.Connection
) -> None:
    first = refresh_memory(store.researcher, dataset, SPEC)
    before, versions = rows_of(store), store.service.list_embedding_versions(dataset, EMB_TYPE)
    owner.execute("listen signal_embeddings")
    calls: list[int] = []
    again = refresh_memory(store.researcher, dataset, SPEC, on_progress=lambda done, total: calls.append(done))
    assert list(owner.notifies(timeout=0.2)) == []
    assert rows_of(store) == before
    assert store.service.list_embedding_versions(dataset, EMB_TYPE) == versions
    assert (again.written, calls) == (0, [])
    assert again.to_dict() == {**first.to_dict(), "written": 0}


def test_from_any_rest_the_same_rows_are_made(store: Store, dataset: Dataset) -> None:
    refresh_memory(store.researcher, dataset, SPEC)
    whole = rows_of(store, whole=False)

    @SLOW
    @given(st.sets(st.integers(0, len(whole) - 1), min_size=1), st.booleans())
    def check(gone: set[int], interrupt: bool) -> None:
        ids = [whole[number]["embedding_id"] for number in gone]
        store.service.gateway.delete("signal_embeddings", where={"embedding_id": ("in", ids)})
        seen: list[int] = []

        def stop(done: int, total: int) -> None:
            seen.append(done)
            if interrupt:
                raise Interrupted

        if interrupt:
            with pytest.raises(Interrupted):
                refresh_memory(store.researcher, dataset, SPEC, on_progress=stop)
        left = len(whole) - len(rows_of(store))
        done = refresh_memory(store.researcher, dataset, SPEC)
        assert (done.written, done.windows) == (left, len(whole))
        assert rows_of(store, whole=False) == whole

    check()


def test_an_interrupted_version_is_not_searched_and_is_finished_later(store: Store, dataset: Dataset) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 80:
            raise Interrupted

    with pytest.raises(Interrupted):
        refresh_memory(store.researcher, dataset, SPEC, on_progress=stop)
    (version,) = store.service.list_embedding_versions(dataset, EMB_TYPE)
    stored = rows_of(store)
    assert (version["status"], 80 <= len(stored) < version["n_windows"]) == ("building", True)
    with pytest.raises(StoreConflictError, match=f"still building: {len(stored)} of its {version['n_windows']} windows"):
        store.researcher.activate_embedding_version(EMB_TYPE, version["emb_version"])
    progress: list[tuple[int, int]] = []
    done = refresh_memory(store.researcher, dataset, SPEC, on_progress=lambda n, total: progress.append((n, total)))
    assert (done.status, done.windows) == ("active", version["n_windows"])
    assert progress[-1] == (done.written, done.written) == (done.windows - len(stored),) * 2
    assert [n for n, _ in progress] == sorted(n for n, _ in progress)


def test_archiving_and_restoring_is_the_identity(store: Store, dataset: Dataset) -> None:
    refresh_memory(store.researcher, dataset, SPEC)
    before = rows_of(store)

    @SLOW
    @given(
        st.integers(0, 700),
        st.floats(0.0, 5.0),
        st.integers(1, 40),
        st.none() | st.lists(st.sampled_from(dataset.symbols), unique=True),
    )
    def check(max_age_days: int, min_t_stat: float, diversity: int, universe: list[str] | None) -> None:
        limits = {"max_age_days": max_age_days, "min_t_stat": min_t_stat, "regime_diversity": diversity}
        dry = store.researcher.prune_vectors(dataset, **limits, asset_universe=universe, dry_run=True)
        assert rows_of(store) == before
        wet = store.researcher.prune_vectors(dataset, **limits, asset_universe=universe, dry_run=False)
        gone = store.service.list_archived(dataset)
        assert dry["selected"] == wet["archived"] == len(gone) == len(before) - len(rows_of(store))
        assert {row["regime_tag"] for row in rows_of(store)} == {row["regime_tag"] for row in before}
        assert store.service.restore_vectors(gone) == len(gone)
        assert rows_of(store) == before
        assert store.service.list_archived(dataset) == []

    check()


def test_what_was_pruned_stays_away_until_it_is_restored(store: Store, dataset: Dataset) -> None:
    first = refresh_memory(store.researcher, dataset, SPEC)
    pruned = store.researcher.prune_vectors(
        dataset, max_age_days=100, min_t_stat=2.0, regime_diversity=3, asset_universe=None, dry_run=False
    )
    before = rows_of(store)
    again = refresh_memory(store.researcher, dataset, SPEC)
    assert (again.written, again.archived, again.status) == (0, pruned["archived"], "active")
    assert again.windows == first.windows - pruned["archived"] > 0
    assert rows_of(store) == before


def test_a_second_version_waits_beside_the_first_until_it_is_switched_to(store: Store, dataset: Dataset) -> None:
    first = refresh_memory(store.researcher, dataset, SPEC)
    finer = MemorySpec(encoder="ts2vec", stride=3)
    second = refresh_memory(store.researcher, dataset, finer)
    assert (first.status, second.status) == ("active", "building")
    assert store.researcher.count_embeddings(dataset, EMB_TYPE)["emb_version"] == first.emb_version
    vector = np.asarray(rows_of(store)[0]["embedding"])
    found = store.researcher.match_embeddings(
        vector, count=1_000, as_of=dataset.sealed_from, emb_type=EMB_TYPE, dataset=dataset
    )
    of = {row["embedding_id"]: row["emb_version"] for row in rows_of(store)}
    assert {of[neighbour.embedding_id] for neighbour in found} == {first.emb_version}
    assert refresh_memory(store.researcher, dataset, finer, switch=True).status == "active"
    assert refresh_memory(store.researcher, dataset, SPEC).status == "retired"
    assert refresh_memory(store.researcher, dataset, SPEC, switch=True).status == "active"


def test_symbols_can_be_refreshed_one_by_one_and_the_last_completes_the_version(store: Store, dataset: Dataset) -> None:
    parts = [refresh_memory(store.researcher, dataset, SPEC, symbols=[symbol]) for symbol in dataset.symbols]
    assert [part.status for part in parts] == ["building", "building", "building", "active"]
    one_by_one = rows_of(store, whole=False)
    whole = refresh_memory(store.researcher, dataset, SPEC)
    assert (whole.written, whole.windows) == (0, len(one_by_one))
    with pytest.raises(MissingDataError, match="unknown symbol XXX; small has AAA, BBB, GAP, STILL"):
        refresh_memory(store.researcher, dataset, SPEC, symbols=["AAA", "XXX"])


def test_a_version_that_two_complete_at_once_is_searched(store: Store, dataset: Dataset) -> None:
    other: list[Refreshed] = []

    def meanwhile(done: int, total: int) -> None:
        if not other:
            other.append(refresh_memory(store.researcher, dataset, SPEC, symbols=["GAP", "STILL"]))

    last = refresh_memory(store.researcher, dataset, SPEC, symbols=["AAA", "BBB"], on_progress=meanwhile)
    assert (other[0].status, last.status) == ("building", "active")
    assert last.windows == len(rows_of(store)) == last.written + other[0].written


def test_an_encoder_that_may_know_the_hold_out_is_refused_and_auto_takes_one_that_cannot(store: Store) -> None:
    dataset = land(store, build_prices(1_100, start="2000-01-03 20:00"))
    with pytest.raises(LookAheadError, match=r"ts2vec learned from prices until 2005-10-21, but small is sealed from 2003-05"):
        refresh_memory(store.researcher, dataset, SPEC)
    done = refresh_memory(store.researcher, dataset, MemorySpec(stride=2))
    assert done.emb_version.startswith("pca-1-")
    panel = build_prices(1_100, start="2000-01-03 20:00").slice(stop=880)
    ends = [end for _, _, end in expected_windows(panel, 880, 2) if end < int(880 * 0.6)]
    assert done.trained_until == panel.index[max(ends)].isoformat()
    assert done.in_sample == len([row for row in rows_of(store) if row["time_range"].upper <= panel.index[max(ends)]])


def test_a_fit_has_one_name_however_many_processors_it_was_made_with(store: Store) -> None:
    dataset = land(store, build_prices(1_100))
    panel, names = store.researcher.load_panel(dataset), set()
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            names.add(plan_memory(dataset, panel, MemorySpec(encoder="pca", stride=1)).version)
    assert len(names) == 1


def test_auto_takes_the_trained_encoder_for_its_own_windows_alone(store: Store) -> None:
    dataset = land(store, build_prices(1_100))
    assert refresh_memory(store.researcher, dataset, MemorySpec(stride=50)).emb_version.startswith("ts2vec-1-0919d346874d-w128")
    assert refresh_memory(store.researcher, dataset, MemorySpec(window=120, stride=2)).emb_version.startswith("pca-1-")


def test_the_streaming_encoder_gets_windows_that_do_not_depend_on_their_start(store: Store, dataset: Dataset) -> None:
    done = refresh_memory(store.researcher, dataset, MemorySpec(encoder="ts2vec_causal", stride=STRIDE))
    assert 0 < done.windows < len(expected_windows(build_prices(), 512))
    first = min(row["time_range"].lower for row in rows_of(store))
    assert first == build_prices().index[7 * 19], "127 bars come before the first whole window, rounded up to the stride"


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        (MemorySpec(encoder="ts2vec", window=64), ShapeError, "takes windows of 128 bars, was asked for 64"),
        (
            MemorySpec(window=513),
            MissingDataError,
            "not enough history: none of the 4 symbols of small has 513 complete closes",
        ),
        (MemorySpec(encoder="pca", window=600), MissingDataError, "not enough history"),
        (MemorySpec(encoder="pca", stride=50), MissingDataError, "needs at least 321 windows"),
        (MemorySpec(encoder="pca", window=60), ShapeError, "at least 320 inputs"),
    ],
)
def test_what_cannot_be_encoded_is_refused_and_nothing_is_stored(
    store: Store, dataset: Dataset, spec: MemorySpec, error: type[DataError], said: str
) -> None:
    with pytest.raises(error, match=said):
        refresh_memory(store.researcher, dataset, spec)
    assert rows_of(store) == []
    assert store.service.list_embedding_versions(dataset, EMB_TYPE) == []


def test_data_without_a_single_whole_window_is_not_enough_history(store: Store) -> None:
    panel = build_prices()
    holes = panel.close.copy()
    holes[::60] = np.nan
    holes[::60, 0] = 1.0
    holes[:, 0] = 1.0
    dataset = land(store, panel.replace(close=holes))
    with pytest.raises(MissingDataError, match="not enough history"):
        refresh_memory(store.researcher, dataset, SPEC)


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"window": 1}, DataError, r"`window` must be a number of bars in 2\.\.10000, was 1"),
        ({"window": 128.0}, DataError, "`window` must be a number of bars"),
        ({"window": True}, DataError, "`window` must be a number of bars"),
        ({"stride": 0}, DataError, r"`stride` must be a number of bars in 1\.\.10000, was 0"),
        ({"stride": "5"}, DataError, "`stride` must be a number of bars"),
        ({"encoder": "gpt"}, ConfigurationError, "the encoder must be one of auto, minirocket, pca, ts2vec, ts2vec_causal"),
        ({"windows": 5}, DataError, "has encoder, window and stride, not windows"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(wanted: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        MemorySpec.from_mapping(wanted)


def test_a_network_that_was_tampered_with_or_is_another_encoders_fills_no_memory(
    store: Store, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = registry._SHIPPED
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path)
    path = tmp_path / "ts2vec-sp500_20.encoder"
    content = bytearray((shipped / path.name).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="fetch or fit it again"):
        refresh_memory(store.researcher, dataset, SPEC)
    shutil.copyfile(shipped / "ts2vec_causal-sp500_20.encoder", path)
    with pytest.raises(DataError, match="holds the encoder ts2vec_causal 1, not ts2vec 1"):
        refresh_memory(store.researcher, dataset, SPEC)
    assert store.service.list_embedding_versions(dataset, EMB_TYPE) == []


def test_a_version_of_another_fit_or_cut_is_not_written_into(store: Store, dataset: Dataset, owner: psycopg.Connection) -> None:
    refresh_memory(store.researcher, dataset, SPEC)
    before = rows_of(store)
    for change in (f"encoder_sha256 = '{'0' * 64}'", "n_windows = 1"):
        kept = owner.execute("select encoder_sha256, n_windows from embedding_versions").fetchone()
        owner.execute(f"update embedding_versions set {change}")  # type: ignore[call-overload]
        with pytest.raises(StoreConflictError, match="a version of its own"):
            refresh_memory(store.researcher, dataset, SPEC)
        owner.execute("update embedding_versions set encoder_sha256 = %s, n_windows = %s", kept)
    assert rows_of(store) == before
