"""What every encoder keeps, whichever it is."""

import functools
import zipfile

import numpy as np
import pytest

from core.errors import ConfigurationError, DataError, MissingDataError, ShapeError
from features.encoders import DIMS, Encoder, get_encoder, load_encoder
from features.windows import rolling_windows, steady_windows
from tests.features.encoders.members import ENCODING, FITTING, PANEL, WINDOWS, broken


@functools.cache
def fitted(member) -> Encoder:
    return member.fitted()


@functools.cache
def trained(member) -> Encoder:
    return member.build().fit(WINDOWS)


@pytest.mark.parametrize("member", ENCODING)
def test_embeddings_are_320_float32_of_unit_length(member):
    encoder = fitted(member)
    embeddings = encoder.encode(WINDOWS)
    assert isinstance(encoder, Encoder)
    assert embeddings.shape == (len(WINDOWS), DIMS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    assert (encoder.name, encoder.dims, encoder.window_shape) == (member.name, 320, (128, 3))


@pytest.mark.parametrize("member", ENCODING)
def test_a_window_is_encoded_alone_as_in_company(member):
    encoder = fitted(member)
    together = encoder.encode(WINDOWS.values[:21])
    for position in (0, 7, 20):
        np.testing.assert_allclose(encoder.encode(WINDOWS.values[position : position + 1])[0], together[position], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(WINDOWS.values[20::-1]), together[::-1], atol=1e-6)
    assert encoder.encode(WINDOWS.values[:0]).shape == (0, DIMS)


@pytest.mark.parametrize("member", ENCODING)
@pytest.mark.parametrize("cut", [rolling_windows, steady_windows])
def test_nothing_after_the_end_of_a_window_moves_its_embedding(member, cut):
    full, known = cut(PANEL), cut(PANEL.slice(0, 500))
    assert 0 < len(known) < len(full)
    kept = full.end < 500
    np.testing.assert_array_equal(known.values, full.values[kept])
    np.testing.assert_allclose(fitted(member).encode(known), fitted(member).encode(full)[kept], atol=1e-6)


@pytest.mark.parametrize("member", ENCODING)
def test_saving_and_loading_changes_nothing(member, tmp_path):
    encoder, path = fitted(member), tmp_path / "fit.encoder"
    encoder.save(path)
    for loaded in (load_encoder(path), type(encoder).load(path, sha256=encoder.sha256)):
        assert type(loaded) is type(encoder)
        assert (loaded.sha256, loaded.trained_until) == (encoder.sha256, encoder.trained_until)
        np.testing.assert_array_equal(loaded.encode(WINDOWS.values[:40]), encoder.encode(WINDOWS.values[:40]))
    again = tmp_path / "again.encoder"
    load_encoder(path).save(again)
    assert again.read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".partial")] == []


@pytest.mark.parametrize("member", ENCODING)
def test_a_file_that_was_changed_is_refused(member, tmp_path):
    encoder, path = fitted(member), tmp_path / "fit.encoder"
    encoder.save(path)
    content = path.read_bytes()
    changed = tmp_path / "changed.encoder"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    inside = largest.header_offset + 200 + rng.integers(largest.file_size - 200, size=20)
    for place in inside:
        changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="fetch or fit it again"):
            load_encoder(changed)
    for shorter in (b"", content[:1000], content[:-30]):
        changed.write_bytes(shorter)
        with pytest.raises(DataError, match="not an encoder's file"):
            load_encoder(changed)


@pytest.mark.parametrize("member", ENCODING)
def test_a_header_or_a_part_that_was_rewritten_is_refused(member, tmp_path):
    encoder, path = fitted(member), tmp_path / "fit.encoder"
    encoder.save(path)

    def rewrite(name: str, change) -> None:
        with zipfile.ZipFile(path) as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        parts[name] = change(parts[name])
        with zipfile.ZipFile(tmp_path / "rewritten", "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, content)

    largest = max(zipfile.ZipFile(path).infolist(), key=lambda member: member.file_size).filename
    for name, change in (
        ("header.json", lambda header: header.replace(b'"trained_until":', b'"trained_until" :')),
        ("header.json", lambda header: header.replace(b'"format":1', b'"format":2')),
        (largest, lambda content: content[:-4] + b"\0\0\0\1"),
        (largest, lambda content: b"no such thing"),
    ):
        rewrite(name, change)
        with pytest.raises(DataError, match="is not what was saved"):
            load_encoder(tmp_path / "rewritten")


@pytest.mark.parametrize("member", ENCODING)
def test_another_encoders_file_another_fit_and_no_file_are_refused(member, tmp_path):
    encoder, path = fitted(member), tmp_path / "fit.encoder"
    encoder.save(path)
    with pytest.raises(DataError, match="not 000000000000"):
        type(encoder).load(path, sha256="0" * 64)
    with pytest.raises(DataError, match="not 000000000000"):
        load_encoder(path, sha256="0" * 64)
    others = {type(fitted(param.values[0])) for param in ENCODING if param.values[0].name in ("pca", "ts2vec")}
    for other in others - {type(encoder)}:
        with pytest.raises(DataError, match=f"holds the encoder {member.name} 1, not"):
            other.load(path)
    with pytest.raises(MissingDataError, match="there is no encoder file"):
        type(encoder).load(tmp_path / "nowhere")


@pytest.mark.parametrize("member", ENCODING)
@pytest.mark.parametrize(
    ("windows", "error", "said"),
    [
        (broken((3, 4, 0), np.nan), MissingDataError, "NaN"),
        (broken((3, 4, 0), np.inf), MissingDataError, "NaN and infinity"),
        (np.concatenate([WINDOWS.values[:3], np.zeros((1, 128, 3))]), MissingDataError, "1 of 4 are constant, the first at 3"),
        (WINDOWS.values[:5, :, :2], ShapeError, "128, 3"),
        (WINDOWS.values[:5, :127], ShapeError, "128, 3"),
        (WINDOWS.values[0], ShapeError, "n_windows, window, n_channels"),
    ],
    ids=["nan", "infinite", "constant", "channels", "bars", "one window"],
)
def test_windows_that_cannot_be_encoded_are_refused(member, windows, error, said):
    with pytest.raises(error, match=said):
        fitted(member).encode(windows)


@pytest.mark.parametrize("member", ENCODING)
def test_an_encoder_that_is_not_fitted_says_so(member, tmp_path):
    encoder = member.build()
    for use in (
        lambda: encoder.encode(WINDOWS),
        lambda: encoder.sha256,
        lambda: encoder.trained_until,
        lambda: encoder.window_shape,
        lambda: encoder.save(tmp_path / "nothing"),
    ):
        with pytest.raises(MissingDataError, match="not fitted"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("member", FITTING)
def test_the_same_fit_gives_the_same_embeddings_and_hash(member):
    first, second = trained(member), member.build().fit(WINDOWS.values)
    assert first.sha256 == second.sha256
    np.testing.assert_array_equal(first.encode(WINDOWS.values[:50]), second.encode(WINDOWS.values[:50]))


@pytest.mark.parametrize("member", FITTING)
def test_another_fit_has_another_hash(member):
    hashes = {trained(member).sha256, member.build().fit(WINDOWS.values[:-40]).sha256}
    if member.seeded:
        hashes.add(member.build(seed=4).fit(WINDOWS).sha256)
    assert len(hashes) == 2 + member.seeded


@pytest.mark.parametrize("member", FITTING)
def test_the_end_of_the_training_is_that_of_its_last_window(member):
    assert trained(member).trained_until == WINDOWS.end_ts.max()
    assert member.build().fit(WINDOWS.values).trained_until is None


@pytest.mark.parametrize("member", FITTING)
def test_a_fit_leaves_numpys_generator_alone(member):
    before = np.random.get_state()  # noqa: NPY002  the libraries draw from this generator
    member.build().fit(WINDOWS)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


@pytest.mark.parametrize("member", FITTING)
def test_windows_longer_than_the_history_cannot_be_fitted(member):
    windows = rolling_windows(PANEL, window=901)
    assert len(windows) == 0
    with pytest.raises(MissingDataError, match="windows"):
        member.build().fit(windows)


@pytest.mark.parametrize("member", FITTING)
def test_windows_that_cannot_be_fitted_are_refused(member):
    for windows, error in (
        (broken((3, 4, 0), np.nan), MissingDataError),
        (np.ones((400, 128, 3)), MissingDataError),
        (WINDOWS.values[0], ShapeError),
    ):
        with pytest.raises(error):
            member.build().fit(windows)


def test_unknown_encoders_are_refused():
    with pytest.raises(ConfigurationError, match="must be one of minirocket, pca, ts2vec, ts2vec_causal, was 'nosuch'"):
        get_encoder("nosuch")
