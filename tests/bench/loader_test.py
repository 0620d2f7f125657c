"""The benchmark of the way from photos to batches."""

import json

import numpy as np
import pytest

from jaxvit.bench import loader
from jaxvit.cli import main
from jaxvit.errors import UserError
from tests.helpers.photos import detailed, jpeg


@pytest.fixture
def photos(tmp_path):
    for i in range(12):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(detailed(60, 80, seed=i)))
    return f"folder:{tmp_path / 'photos'}"


def test_a_row_has_the_stages_the_rates_and_a_verdict(photos, tmp_path, capsys):
    said, fields = tmp_path / "found.json", ("patch_size=8", "depth=1", "embed_dim=16", "num_heads=2")
    model = ["--model", "vit_tiny_patch16_224", "--image-size", "16", *(x for f in fields for x in ("--field", f))]
    few = ["--batch-size", "4", "--seconds", "0.05", "--repeats", "1", "--json", str(said)]
    assert main(["bench", "--loader", "--data", photos, *model, *few]) == 0
    found = json.loads(said.read_text())
    (row,) = found["results"]
    assert found["complete"] and row["decoder"] == "pillow" and row["image_size"] == [16, 16]
    assert set(row["seconds_per_photo"]) == {"read", "decode", "crop", "copy"}
    rates = [*row["by_threads"].values(), *row["by_processes"].values()]
    assert min(row["seconds_per_photo"].values()) > 0 and min(rates) > 0
    assert row["images_per_second"] == max(rates)
    out = capsys.readouterr().out
    assert "images/s" in out and "threads" in out and "processes" in out and "the loader " in out


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((500, 1000), "0.5 of the model's rate; about 8 cores"),
        ((2000, 1000), "2.0 times"),
        ((960, 1000), "keeps up with the model"),
    ],
)
def test_the_verdict(rates, said):
    assert said in loader.verdict(*rates, cores=4)


def test_arrays_need_no_loader(tmp_path):
    with pytest.raises(UserError, match="read into memory once"):
        loader.photos_of("digits")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--loader needs --data"),
        (("--data", "folder:x", "--loop"), "cannot be combined with --loop"),
        (("--data", "digits", "--compare", "torch"), "--compare reads folder:PATH"),
        (("--data", "folder:not_there"), "not_there"),
    ],
)
def test_mistakes_are_told_in_a_line(more, said, capsys):
    assert main(["bench", "--loader", "--model", "resnet18", *more]) == 2
    assert said in capsys.readouterr().err


def test_stages_add_up_to_a_crop_of_the_file(photos):
    """What is timed piece by piece is what a feed does in one piece."""
    split, crop = loader.photos_of(photos), loader.make_crop((16, 16), "pillow")
    from jaxvit.data import crops

    whole = crop.of_file(crops.generator(0, 0, 3), split.file(3))
    np.testing.assert_array_equal(crop.cut(*crop.decode(crops.generator(0, 0, 3), split.file(3))), whole)
