"""Images found, read and classified."""

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvit import inference
from jaxvit.data import listing
from jaxvit.errors import UserError


def write_images(folder, n=5):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("https://example.com/a.jpg", "download the image first"),
        ("-", "not from standard input"),
        ("/dev/stdin/x", "not from standard input"),
        ("new/*.jpg", "expanded by the shell"),
        ("PHOTO.jpg", "Did you mean 'photo.jpg'"),
    ],
)
def test_a_name_that_is_no_file_is_answered(tmp_path, monkeypatch, text, hint):
    (tmp_path / "photo.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        inference.find_images([text])
    assert f"no file {text!r}." in str(caught.value) and hint in str(caught.value)


def test_find_images(tmp_path):
    inside = write_images(tmp_path / "a folder" / "below", 3)
    (tmp_path / "a folder" / "notes.txt").write_text("no image")
    assert inference.find_images([str(tmp_path / "a folder"), str(inside[0])]) == [*inside, inside[0]]
    for wrong in (tmp_path / "gone.png", tmp_path / "a\0b"):
        with pytest.raises(UserError, match="no file"):
            inference.find_images([str(wrong)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 2)])
def test_images_of_any_mode_and_size(run, tmp_path, mode, size):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    grey = np.full(size[::-1], 40000 if mode == "I;16" else 150, np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(grey)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    ((_, probabilities),) = inference.predict(inference.from_run(run), [path])
    chex.assert_shape(probabilities, (3,))
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_predictions_do_not_depend_on_the_batch(run, tmp_path):
    paths, classifier = write_images(tmp_path), inference.from_run(run)
    whole = dict(inference.predict(classifier, paths, 32))
    assert list(whole) == paths
    for size in (1, 2, 5):
        for path, probabilities in inference.predict(classifier, paths, size):
            np.testing.assert_allclose(probabilities, whole[path], atol=1e-6)


def test_linked_folders_are_looked_into_once(tmp_path):
    """A class folder of the data may be a link; training follows it, so that prediction does."""
    photos, other = tmp_path / "photos", tmp_path / "other"
    for folder in (photos / "cat", other / "deep"):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "1.png")
    (photos / "dog").symlink_to(other)
    (photos / "again").symlink_to(photos / "cat")  # met there
    (photos / "circle").symlink_to(photos)
    (photos / "up").symlink_to(tmp_path)
    (other / "circle").symlink_to(other)
    (other / "deeper").symlink_to(other / "deep")
    found = [path.relative_to(photos).as_posix() for path in inference.find_images([str(photos)])]
    assert found == ["cat/1.png", "dog/deep/1.png"]
    assert list(listing.read(photos, ["."]).names) == found
