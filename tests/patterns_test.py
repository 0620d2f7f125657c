"""Regular expressions from files: what could last for ever is refused, what people write is not."""

import time

import pytest

from jaxvit import config, patterns
from jaxvit.errors import UserError
from jaxvit.optim.masks import freeze_mask

PATHS = {"blocks_0": {"attn": {"a" * 40: 0}}, "head": {"kernel": 0}}


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$", r"(a*)*b", r"(a|aa)+$", r"(a|a)*b", r"(.*)*x", r".*.*.*.*.*x", r"(\w+/?)+$", r"(?:a|b|ab)*c",
        r"a?" * 30 + "a" * 30, r"((a{1,60}){1,60}){1,60}x", r"(?=(a+)+$)", r"(?<!x)(a+)+$", r"x" * 2000,
    ],
)  # fmt: skip
def test_what_might_last_for_ever_is_refused_at_once(pattern):
    begun = time.monotonic()
    with pytest.raises(UserError, match="could take forever|expected at most 1000"):
        freeze_mask(PATHS, pattern)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?!head)", r"blocks_[0-5]/|patch_embed|cls_token|pos_embed", r"layer[1-4]_\d+/.*kernel",
        r"(head|fc)(_\w+)?/",
        r"^blocks_(0|1|2|10|11)/", r".*attn.*(qkv|proj).*", r"(foo|bar)+", r"x{5}", r"(ab){3,}",
        r"(?i)HEAD", r"(\w+)/\1",
        "|".join(f"blocks_{i}/.*" for i in range(40)),
    ],
)  # fmt: skip
def test_what_people_write_is_compiled(pattern):
    assert patterns.compile(pattern).pattern == pattern


@pytest.mark.parametrize("pattern", ["(", "[", "*a", "a{2,1}", "(?P<1>a)", "\\"])
def test_no_regular_expression(pattern):
    with pytest.raises(UserError, match="is not a regular expression"):
        patterns.compile(pattern)


def test_the_words_of_freezing_have_limits_too():
    with pytest.raises(UserError, match="expected at most 1000"):
        freeze_mask(PATHS, f"last_{'9' * 5000}_blocks")
    assert config.default().optim.freeze == "none"
