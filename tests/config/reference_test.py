"""The reference of the options."""

from jaxvit import config
from jaxvit.config import reference

SECTIONS = ("optim.", "optim.schedule.", "loss.", "augment.")


def test_every_declared_option_has_a_meaning():
    found = {option.name: option for option in reference.options()}
    assert found.keys() == config.declared().keys() | {f"{word}options" for word in SECTIONS}
    assert all(option.meaning and option.meaning[-1] != "." for option in found.values())
    assert found["optim.sam.rho"][1:3] == (0.0, "a number")
    assert found["dtype"].meaning.startswith("type of the computation")  # stands above its line
