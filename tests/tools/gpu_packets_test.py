"""The packets of GPU measurements: every command line is valid, and all of them fit the time that there is."""

import re
from pathlib import Path

import pytest

from jaxvit import config as config_lib
from jaxvit import models
from jaxvit.bench import timm_side
from jaxvit.commands import bench
from jaxvit.config import checks
from jaxvit.studies import study as studies
from tools.gpu import figures, jobs, packets, prepare, seeds, tables, wanted
from tools.gpu.jobs import ROOT, Place

START, LENT, LONGEST = 90, 900, 570  # seconds: of the machine's start, of the whole, of a call


def all_jobs(call):
    return [job for phase in call.phases for lane in phase.lanes for job in lane]


CALLS = [call for _, call in packets.CALLS.values()]
ALL = [(call, job) for call in CALLS for job in all_jobs(call)]


@pytest.mark.parametrize("tiny", [False, True], ids=["", "tiny"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_every_command_line_is_valid(call, tiny):
    for job in all_jobs(call):
        check_command(job, tiny)


def check_command(job, tiny):
    place = Place(Path("/work"), packets.MODELS, tiny, "python-with-torch")
    argv = jobs.command(job, place).argv
    words = list(argv[2:])
    assert argv[1] == "-c" or (ROOT / argv[1]).is_file()
    if job.kind in ("bench", "warm"):
        parsed = bench._parse(words[1:] if job.kind == "bench" else words)
        (settings,) = bench._wanted(parsed)
        assert settings.dtype == ("float32" if tiny else "bfloat16")
        assert (parsed.compare, parsed.torch_python) == (("timm", "python-with-torch") if job.timm else (None, None))
        assert (parsed.json is None) == (job.kind == "warm")
    elif job.kind in ("train", "warm_train", "seeds"):
        at = words.index("--config") + 1
        overrides = [word for word in words if word.startswith("--config.")]
        config = config_lib.load(str(ROOT / words[at]), overrides, models.model_fields)
        checks.validate(config)
        assert not tiny or (config.num_epochs == 2 and config.dtype == "float32")
        assert not job.until or re.search(rf"/{config.num_epochs} ", jobs.pattern(job, place))
    elif job.kind == "study":
        study, _ = studies.load(job.of)
        rows = words[words.index("--rows") + 1].split(",")
        assert set(rows) <= {row.name for row in study.rows} and ("--smoke" in words) == tiny
    elif job.kind == "profile":
        fields = [word for before, word in zip(words, words[1:], strict=False) if before == "--field"]
        models.create_model(packets.MODELS[job.of].name, **dict(map(bench._field, fields)))


@pytest.mark.parametrize("packet", packets.PACKETS.values(), ids=lambda packet: packet.name)
def test_a_packet_fits_the_time_that_a_machine_is_lent(packet):
    assert sum(call.seconds for call in packet.calls) <= LENT - START
    assert sum(call.seconds for call in packet.calls) <= 60 * packet.minutes <= LENT
    for call in packet.calls:
        assert call.seconds <= LONGEST
        assert all(job.guard <= call.seconds for job in all_jobs(call))
        names = [job.name for job in all_jobs(call)]
        assert len(set(names)) == len(names)
        assert len(f"python3 tools/gpu run {call.name}") < 2000
    order = packet.calls
    for number, call in enumerate(order):
        for job in all_jobs(call):
            later = [other for after in order[number + 1 :] for other in all_jobs(after) if other.kind == "wait"]
            assert job.outlives == (job.name in {other.name for other in later})


def test_noise_is_compiled_with_the_words_that_images_are_trained_with():
    off = "--config.pretrain.name=None"  # the second phase of a run, warmed alone
    # when SAM starts and what is evaluated when is decided outside of the programs
    outside = ("--config.optim.sam.start_fraction=", "--config.eval_every_epochs=", off)

    def programs(kind):
        jobs = [job for _, job in ALL if job.kind == kind]
        return {(job.of, tuple(word for word in job.words if not word.startswith(outside))) for job in jobs}

    assert programs("warm_train") and programs("warm_train") <= programs("train")


def test_a_data_set_comes_in_the_parts_that_the_calls_bring():
    for packet in packets.PACKETS.values():
        parts = [word for call in packet.calls for word in call.brings if ":" in word]
        needed = {job.data for call in packet.calls for job in all_jobs(call)} - {"", *packets.NOISE}
        assert {word.partition(":")[0] for word in parts} == needed
        assert [word.partition(":")[2] for word in parts] == [str(n + 1) for n in range(len(parts))]


def test_every_figure_of_the_tables_is_of_a_job_that_is_there():
    lines = [line.of for table in tables.TABLES.values() for line in table.lines]
    for of in [*lines, *(of for of, _ in tables.RECIPES.values())]:
        packet, _, job = of.partition("/")
        assert job in packets.PACKETS[packet].jobs()
    shown = set(lines)
    assert {f"{p.name}/{job}" for p in packets.PACKETS.values() for job in p.jobs()} - shown == {"g/bits_2"}


def test_the_documents_are_what_the_results_say():
    """`python3 tools/gpu list --write` draws them."""
    for name, table in tables.TABLES.items():
        assert f"<!-- gpu: {name} -->\n{tables.draw(table, ROOT)}\n<!--" in (ROOT / table.file).read_text()
    for name in tables.RECIPES:
        assert f"\n{tables.recipe_line(name, ROOT)}\n" in (ROOT / "configs" / f"{name}.py").read_text()
    assert wanted.render(ROOT) in (ROOT / wanted.FILE).read_text()


def test_what_stays_on_a_list_is_ignored_by_git():
    assert "/.gpu/" in (ROOT / ".gitignore").read_text().splitlines()
    assert all(wheel.partition("==")[2] for wheel in prepare.WHEELS)


def test_a_speed_run_tells_compilation_and_the_time_to_the_aim_apart():
    rows = [
        {"wall_seconds": 90.0 - 50 * seed, "compile_seconds": 40.0 * (1 - seed), "train_seconds": 20.0 + seed,
         "seconds_to_target": 21.0 if seed else None, "images_per_second": 6e4, "test_accuracy": 0.94 + 0.02 * seed}
        for seed in range(2)
    ]  # fmt: skip
    found = seeds.gather(rows, 0.95, wanted=3)
    assert (found["reached"], found["seconds_to_target"]["mean"], found["complete"]) == (1, 21.0, False)
    assert (found["wall_seconds_first"], found["wall_seconds_warm"]["mean"]) == (90.0, 40.0)
    assert found["test_accuracy"]["mean"] == pytest.approx(0.95)


def test_accuracy_with_mirror_images_is_told_where_all_seeds_have_it():
    told = figures.FIGURES["seeds' mirrored"]
    for values, cell in (((0.95, 0.96), "95.50 % ± 0.71"), ((0.95, None), ""), ((None,), "")):
        assert told({"found": {"runs": [{"mirrored_accuracy": value} for value in values]}}) == cell
    assert told({"found": {"runs": [{"test_accuracy": 0.95}]}}) == ""


def test_a_request_to_timm_may_leave_out_the_eager_half():
    job = jobs.Job("timm", "warm_timm", "vit_base swin_tiny")
    asked = jobs.command(job, Place(Path("/work"), packets.MODELS))
    assert '"eager": false' in asked.stdin and asked.stdin.count('"mode"') == 4 and asked.stdin.endswith("\n")
    assert callable(timm_side.main)
