"""Pictures of maps, whether maps are right: values by hand, figures that draw, mistakes."""

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvit.errors import UserError
from jaxvit.explain import faithfulness, overlay


def test_colours_differ_in_lightness_all_the_way():
    """Readable in grey and to the colour-blind: the lightness rises with the map."""
    for cmap in overlay.COLOUR_MAPS:
        rgb = overlay.colour(np.linspace(0, 1, 32)[None], cmap)[0]
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert (np.diff(linear @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_overlay_shows_the_photo_where_alpha_is_zero_and_the_heat_where_it_is_one():
    rng = np.random.default_rng(0)
    image, heat = rng.uniform(size=(4, 5, 3)).astype(np.float32), np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(overlay.overlay(image, heat, alpha=0), np.round(255 * image).astype(np.uint8))
    hot = np.round(255 * overlay.colour(heat)).astype(np.uint8)
    np.testing.assert_array_equal(overlay.overlay(image, heat, alpha=1), hot)
    cold = overlay.overlay(image, 0 * heat)  # no heat: a photo in grey, a little darker
    grey = image @ np.array([0.299, 0.587, 0.114])
    assert np.corrcoef(cold[..., 1].ravel(), grey.ravel())[0, 1] > 0.999


def test_normalisation_is_undone_also_for_grey_images():
    images = np.random.default_rng(0).uniform(size=(2, 3, 4, 3)).astype(np.float32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    chex.assert_trees_all_close(overlay.to_display((images - mean) / std, mean, std), images, atol=1e-6)
    chex.assert_shape(overlay.to_display(images[..., :1], (0.5,), (0.5,)), (2, 3, 4, 3))


def test_figures_are_written_as_png_and_pdf(tmp_path):
    picture = np.zeros((8, 12, 3), np.uint8)
    figure = overlay.grid(
        [[picture, None], [picture]], [["one", ""], ["a very long name of a class, cut off"]], ["a"] * 2
    )
    files = overlay.save(figure, tmp_path / "new" / "grid", dpi=50)
    assert [f.name for f in files] == ["grid.png", "grid.pdf"]
    with Image.open(files[0]) as image:
        assert image.size[0] > 100
    assert files[1].read_bytes().startswith(b"%PDF")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["grid.pdf", "grid.png"]
    heads = overlay.head_grid(np.zeros((8, 12, 3)), np.zeros((5, 8, 12)))
    assert len([a for a in heads.axes if a.images]) == 6
    overlay.save(overlay.distance_figure([np.array([1.0, 2.0]), np.array([3.0])]), tmp_path / "far", ("png",), 40)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: overlay.colour(np.zeros((2, 2)), "jet"), "no colour map 'jet'; expected inferno"),
        (lambda: overlay.colour(np.zeros((2, 2)), "viridus"), "Did you mean 'viridis'"),
        (lambda: overlay.overlay(np.zeros((2, 2, 3)), np.zeros((2, 2)), alpha=2), "alpha=2 is not in"),
        (lambda: overlay.grid([]), "no pictures"),
        (lambda: faithfulness.cell_order(np.zeros((1, 5, 4)), 2), "5x4 are not divisible"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
