"""Names of topologies."""

import pytest

from jaxvit.errors import UserError
from jaxvit.plan import chips


@pytest.mark.parametrize(
    "name, said",
    [("v5f:4x4", "no chip 'v5f'.*v5e"), ("v5e", "does not name a slice"), ("v5e:4x4x4", "2 sides"),
     ("v5p:4x4", "3 sides"), ("cpu:2x2", "number of processors"), ("v5e:0x4", "does not name a slice")],
)  # fmt: skip
def test_wrong_topologies_are_named(name, said):
    with pytest.raises(UserError, match=said):
        chips.parse(name)


def test_names_of_nodes():
    node = chips.parse("h200:8")
    assert (node.name, node.chips, node.is_gpu, node.is_cpu, node.chip.platform) == ("h200:8", 8, True, False, "gpu")
    assert not chips.parse("v5e:4x4").is_gpu and chips.parse("cpu:2").is_cpu
    for wrong in ("h200:16", "h100:2x4"):
        with pytest.raises(UserError, match="at most 8, such as h[12]00:8"):
            chips.parse(wrong)
    with pytest.raises(UserError, match="Did you mean 'h200'"):
        chips.parse("h20:1")
