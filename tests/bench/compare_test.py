"""A bench against timm's rows and against a baseline."""

import pytest

from jaxvit.bench import compare
from jaxvit.errors import UserError


def row(rate, **words):
    key = {"model": "m", "fields": {}, "dtype": "float32", "image_size": [8, 8], "mode": "infer", "batch_size": 2}
    return {**key, "images_per_second": {"median": rate}, "memory_planned_bytes": 100, **words}


def whole(*rows, device="a cpu"):
    return {"environment": {"device": device}, "results": list(rows)}


def test_a_baseline_flags_what_got_worse():
    compared, worse = compare.regressions(whole(row(89.0)), whole(row(100.0)), 0.1)
    assert worse == ["m float32 infer: images_per_second 100 -> 89 (-11.0%)"]
    assert {entry["figure"] for entry in compared} == {"images_per_second", "memory_planned_bytes"}
    assert compare.regressions(whole(row(91.0)), whole(row(100.0)), 0.1)[1] == []
    slow, fast = row(9.0, latency_seconds={"median": 2.0}), row(9.0, latency_seconds={"median": 1.0})
    assert len(compare.regressions(whole(slow), whole(fast), 0.1)[1]) == 1
    with pytest.raises(UserError, match="measured on 'a gpu', not on 'a cpu'"):
        compare.regressions(whole(row(1.0)), whole(row(1.0), device="a gpu"), 0.1)
    with pytest.raises(UserError, match="nothing was compared"):
        compare.regressions(whole(row(1.0)), whole(row(1.0, batch_size=4)), 0.1)


def test_ratios_are_ours_over_timms():
    other = {k: v for k, v in row(50.0).items() if k != "model"} | {"name": "m", "compiled": False}
    late = {"latency_seconds": {"median": 0.5}}
    failed = {**other, "compiled": True, "error": "no compiler"}
    (entry,) = compare.ratios([row(100.0, latency_seconds={"median": 0.25})], [other | late, failed])
    assert (entry["eager"], entry["eager_latency"]) == (2.0, 2.0)
    assert entry["compiled_error"] == "no compiler" and "compiled" not in entry


def test_a_talkative_torch_does_not_block(tmp_path):
    talker = tmp_path / "python"
    talker.write_text("#!/bin/sh\nhead -c 500000 /dev/zero | tr '\\0' '\\n' >&2\necho '{\"versions\": {}}'\n")
    talker.chmod(0o755)
    compare.check_timm(str(talker))
    talker.write_text("#!/bin/sh\necho no torch here >&2\nexit 1\n")
    with pytest.raises(UserError, match="no torch here"):
        compare.check_timm(str(talker))
