"""What came back from a GPU: made-up results fill the tables and strike the packet; damaged ones are refused."""

import io
import json
import shutil
import tarfile

import numpy as np
import pytest

from tools.gpu import merge, packets, tables, wanted
from tools.gpu.jobs import ROOT

GPU = "NVIDIA H100 80GB HBM3, 580.1, 81559 MiB, 1980 MHz"


def row(mode, rate, **more):
    """A row of bench --json."""
    return {
        "model": "m", "dtype": "bfloat16", "mode": mode, "batch_size": 256, "image_size": [224, 224], "fields": {},
        "images_per_second": {"median": rate, "least": rate, "most": rate}, "step_seconds": 256 / rate, "spread": 0.01,
        "mfu": 0.42, "memory_peak_bytes": 2**35, "memory_planned_bytes": 2**34, "parameters": 5,
        "compile_seconds": {"cold": 31.0, "warm": 4.0}, **more,
    }  # fmt: skip


def bench(*modes, timm=False):
    """What `main.py bench --json` writes."""
    rates = {"train": 2345.0, "infer": 8765.0, "loop": 64000.0}
    more = {"infer": {"latency_seconds": {"median": 0.00123}}, "loop": {"gap": 0.034}}
    found = {
        "complete": True, "environment": {"device": "NVIDIA H100", "jax": "0.11.2", "flags": {}},
        "ceiling_flops": {"bfloat16": 7.5e14},
        "results": [row(mode, rates[mode], **more.get(mode, {})) for mode in modes],
    }  # fmt: skip
    if timm:
        ratios = [
            {"mode": mode, "compiled": 1.27, "eager": 1.9, "compiled_images_per_second": 1846.0} for mode in modes
        ]
        found["timm"] = {"versions": {"torch": "2.11"}, "results": [], "ratios": ratios}
    return found


def run(accuracy, logits):
    """A training run's files."""
    written = io.BytesIO()
    np.savez(written, logits=logits)
    summary = {"final": {"test/accuracy": accuracy}, "best": {}, "epochs": 200, "train_seconds": 181.4,
               "compile_seconds": 30.0, "images_per_second": 5e4, "model": "resnet18"}  # fmt: skip
    config = {"seed": 0, "num_epochs": 200, "dtype": "bfloat16", "deterministic": False}
    return {"summary.json": summary, "config.json": config, "predictions.npz": written.getvalue(),
            "metrics.jsonl": '{"epoch": 10, "val/accuracy": 0.5}\n{"epoch": 11}\n'}  # fmt: skip


def seeds(n):
    """A speed run."""
    runs = [{"test_accuracy": 0.95 + 0.001 * i, "mirrored_accuracy": 0.96, "compile_seconds": 41.0, "environment": {}}
            for i in range(n)]  # fmt: skip
    return {"runs": runs, "reached": n, "target": 0.95, "complete": True, "train_seconds": {"mean": 12.34},
            "wall_seconds_warm": {"mean": 24.0}, "seconds_to_target": {"mean": 12.34}}  # fmt: skip


def study(job, n):
    """A study's rows, each with n seeds."""
    (chosen,) = (word for before, word in zip(job.words, job.words[1:], strict=False) if before == "--rows")
    files, runs = {}, {}
    for i, name in enumerate(chosen.split(",")):
        for seed in range(n):
            runs[f"{name}/seed{seed}"] = {"status": "done"}
            summary = {"final": {"test/accuracy": 0.7 + 0.01 * i + 0.001 * seed}, "epochs": 5, "train_seconds": 9.0}
            files[f"runs/{job.name}/{name}/seed{seed}/summary.json"] = summary
    return {f"runs/{job.name}/study.json": {"study": job.of, "runs": runs}, **files}


def files_of(job):
    """Made-up files of any job."""
    if job.kind == "bench":
        modes = ("loop",) if "--loop" in job.words else ("train",) if "train" in job.words else ("train", "infer")
        return {f"{job.name}.json": bench(*modes, timm=job.timm)}
    if job.kind == "train":
        logits = np.ones((4, 3), np.float32)
        return {f"runs/{job.name}/{name}": content for name, content in run(0.7967, logits).items()}
    if job.kind == "seeds":
        return {f"runs/{job.name}/seeds.json": seeds(5)}
    if job.kind == "study":
        return study(job, 3 if "--seeds=3" in job.words else 1)
    if job.kind == "profile":
        parts = {"mlp": 0.04, "linear layers of attention": 0.03}
        found = {"by_part": parts, "kernel_seconds": 0.095, "step_seconds": 0.1, "longest": [{}] * 40}
        return {f"{job.name}.json": found}
    if job.kind == "kernels":
        errors = {f"{dtype}_{word}": 1e-5 for dtype in ("float32", "bfloat16") for word in ("out", "dqkv", "dbias")}
        return {f"{job.name}.json": [{"good": True, **errors}]}
    ratios = {"sam / plain": 1.98, "asam / sam": 1.01, "plain / head_only": 2.9}
    return {f"{job.name}/{job.of}.json": {"ratios": ratios}}


def write(out, of, *, state=None, change=None, **facts):
    """OUT of a packet, as `run` writes it; `change` is given the files first."""
    files, entries = {}, []
    for job in packets.PACKETS[of].jobs().values():
        files |= files_of(job)
        entries.append({"name": job.name, "call": f"{of}1", "state": (state or {}).get(job.name, "done"),
                        "seconds": 9.0, "command": ["python3", "main.py", job.name]})  # fmt: skip
    if change:
        change(files)
    out.mkdir()
    with tarfile.open(out / "results.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            data = (
                content
                if isinstance(content, bytes)
                else (content if isinstance(content, str) else json.dumps(content)).encode()
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    index = {"packet": of, "tiny": False, "commit": "abc123", "gpu": GPU, "versions": {"jax": "0.11.2"},
             "python": "3.12.3", "finished": True, "jobs": entries, } | facts  # fmt: skip
    (out / "index.json").write_text(json.dumps(index))
    return out


@pytest.fixture
def root(tmp_path):
    """The documents that are drawn, as they are without any result."""
    home = tmp_path / "root"
    for file in {wanted.FILE, *(t.file for t in tables.TABLES.values()), *(f"configs/{n}.py" for n in tables.RECIPES)}:
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, home / file)
    tables.redraw(home)
    wanted.redraw(home)
    return home


def contents(root):
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def merged(root, *outs):
    return merge.main([*map(str, outs), "--root", str(root)])


def test_a_packet_fills_its_tables_and_leaves_the_list(root, tmp_path):
    assert "not measured yet (packet b)" in (root / "README.md").read_text()
    assert "\n## b: " in (root / wanted.FILE).read_text()
    assert merged(root, write(tmp_path / "b", "b"), write(tmp_path / "h", "h")) == 0
    readme, listed = (root / "README.md").read_text(), (root / wanted.FILE).read_text()
    line = "| ResNet-18, CIFAR-100, 200 epochs from scratch | 79.5 % | 79.67 % | H100 80GB |"
    assert line in readme and "not measured yet (packet b)" not in readme and "(packet a)" in readme
    assert "\n## b: " not in listed and "\n## a: " in listed and "# Measurements that wait for a quiet CPU" in listed
    recipe = (root / "configs" / "scratch_cnn_cifar.py").read_text()
    assert "\nMeasured: 79.67 %, 200 epochs, 181 s of training; H100 80GB (results/gpu/b/r18_200.json).\n" in recipe
    assert (
        "| CIFAR-100, 75 % | 95.20 % ± 0.16 | 96.00 % ± 0.00 | 12.3 s | 5 of 5 | 41 s | 24 s | H100 80GB |"
        in (root / "docs" / "PERFORMANCE.md").read_text()
    )
    found = json.loads((root / "results/gpu/b/r18_200.json").read_text())
    assert (found["commit"], found["hardware"]) == ("abc123", "NVIDIA H100 80GB HBM3")
    assert found["versions"] == {"jax": "0.11.2"} and found["command"] == ["python3", "main.py", "r18_200"]
    assert found["found"]["validation"] == [[10, 0.5]]


def test_all_packets_leave_nothing_to_measure(root, tmp_path):
    assert merged(root, *(write(tmp_path / name, name) for name in packets.PACKETS)) == 0
    texts = contents(root)
    assert not [
        name
        for name, text in texts.items()
        if "not measured yet" in text and "packet" in text.split("not measured yet (")[-1][:9]
    ]
    assert "Nothing: every packet is measured." in texts[wanted.FILE]
    page = texts["docs/PERFORMANCE.md"]
    assert "| ViT-B/16, 256 | 2,345 | 42 % | 8,765 | 42 % | 1.23 ms | 32.0 GiB | H100 80GB |" in page
    assert "| Swin-T, window kernel | 2,345 | 42 % | 8,765 | 42 % | 1.23 ms | 32.0 GiB | H100 80GB |" in page
    assert "| ViT-B/16, 256 | 2,345 | 1,846 | 1.27 | H100 80GB |" in page
    assert "| ViT-B/16 | 95 % | mlp 42 %, linear layers of attention 32 % | H100 80GB |" in page
    assert "| largest difference over Swin-T's stages | yes | 1.0e-05 | 1.0e-05 | H100 80GB |" in page
    assert "| ResNet-18, 32 px, 2 epochs | yes | H100 80GB |" in page
    assert "| ResNet-18, 32 px, 512 | 1.98 | 1.01 | 2.90 | H100 80GB |" in page
    assert "| blocks one by one | 31.0 s | 4.0 s | 109.2 ms | H100 80GB |" in page
    assert "| ResNet-18, CIFAR stem, 2,048 | 64,000 | 3.4 % | H100 80GB |" in page
    assert "| DeiT-Ti, ASAM |  | 70.10 % ± 0.10 | H100 80GB |" in texts["docs/STUDIES.md"]
    assert "| ViT 2L-2H-128 | 72.1 % | 71.00 % | H100 80GB |" in texts["docs/STUDIES.md"]


def test_merging_again_changes_nothing(root, tmp_path, capsys):
    out = write(tmp_path / "b", "b")
    assert merged(root, out) == 0
    before = contents(root)
    capsys.readouterr()
    assert merged(root, out) == 0
    assert contents(root) == before and "nothing to change" in capsys.readouterr().out


def test_what_is_not_done_stays_wanted_and_rows_of_a_bench_count(root, tmp_path, capsys):
    def cut(files):
        files["vit_base.json"] |= {"complete": False, "results": files["vit_base.json"]["results"][:1]}
        del files["swin_base.json"]

    state = {"vit_base": "stopped by its guard", "swin_base": "left out: no time", "kernels": "failed with 1"}
    assert merged(root, write(tmp_path / "a", "a", state=state, change=cut)) == 0
    assert "kernels: failed with 1" in capsys.readouterr().out
    listed, page = (root / wanted.FILE).read_text(), (root / "docs" / "PERFORMANCE.md").read_text()
    assert "Still to be measured: kernels, vit_base, swin_base (`--only" in listed
    assert "| ViT-B/16, 256 | 2,345 | 42 % |  |  |  | 32.0 GiB | H100 80GB |" in page
    assert "| Swin-B, 128 | not measured yet (packet a) |" in page


@pytest.mark.parametrize("there, rest", [(2, 1), (4, 0)])
def test_the_seeds_of_a_speed_run_that_was_cut_off_count(root, tmp_path, there, rest):
    def cut(files):
        files["runs/fast10/seeds.json"] |= {**seeds(there), "complete": False}

    out = write(tmp_path / "f", "f", state={"fast10": "stopped by its guard"}, change=cut)
    assert merged(root, out) == 0
    assert f"| 12.3 s | {there} of {there} | 41 s |" in (root / "docs" / "PERFORMANCE.md").read_text()
    assert len(wanted.missing(packets.PACKETS["f"], root)) == rest


def test_a_comparison_without_timms_half_says_so_and_stays_wanted(root, tmp_path):
    def cut(files):
        files["resnet50.json"] |= {"complete": False, "timm": {"ratios": [{"mode": "train"}]}}

    assert merged(root, write(tmp_path / "v", "v", state={"resnet50": "stopped by its guard"}, change=cut)) == 0
    assert "Still to be measured: resnet50 (`--only" in (root / wanted.FILE).read_text()
    page, readme = (root / "docs" / "PERFORMANCE.md").read_text(), (root / "README.md").read_text()
    assert "| ResNet-50, 512 | 2,345 | timm unfinished | timm unfinished | H100 80GB |" in page
    assert "| ResNet-50 training speed, relative to compiled timm | 1.2 | timm unfinished | H100 80GB |" in readme


def test_different_bits_are_told(root, tmp_path):
    def other(files):
        files["runs/bits_2/predictions.npz"] = run(0.7967, np.zeros((4, 3), np.float32))["predictions.npz"]

    assert merged(root, write(tmp_path / "g", "g", change=other)) == 0
    assert "| ResNet-18, 32 px, 2 epochs | NO | H100 80GB |" in (root / "docs" / "PERFORMANCE.md").read_text()


def put(name, **changes):
    def change(files):
        files[name] = {**files[name], **changes}

    return change


SUMMARY = "runs/r18_200/summary.json"
REFUSED = [
    ("a rehearsal", {"tiny": True}, None, "is a rehearsal"),
    ("no GPU", {"gpu": ""}, None, "names no GPU"),
    ("no commit", {"commit": "unknown"}, None, "names no commit"),
    ("a call that was cut off", {"finished": False}, None, "did not come to its end"),
    ("another packet", {"packet": "zz"}, None, "is of packet 'zz'"),
    ("a file that is not there", {}, lambda files: files.pop(SUMMARY), "no file runs/r18_200/summary.json"),
    ("half a file", {}, lambda files: files.update({SUMMARY: '{"final": {"te'}), "job r18_200: its files are damaged"),
    ("no accuracy", {}, put(SUMMARY, final={}), "test/accuracy"),
    ("an accuracy of 79", {}, put(SUMMARY, final={"test/accuracy": 79.67}), "an accuracy is a fraction"),
    ("no number", {}, put(SUMMARY, train_seconds=float("nan")), "train_seconds is nan"),
    ("a time below 0", {}, put(SUMMARY, train_seconds=-1.0), "cannot be below 0"),
    ("no seed", {}, put("runs/fast100/seeds.json", runs=[]), "no seed"),
]  # fmt: skip


@pytest.mark.parametrize("facts, change, said", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_incomplete_and_damaged_results_are_refused_in_a_line(root, tmp_path, capsys, facts, change, said):
    packet = "h" if said == "no seed" else "b"
    out, before = write(tmp_path / "out", packet, change=change, **facts), contents(root)
    assert merged(root, out) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert contents(root) == before


def test_damaged_archives_and_places_without_results_are_refused(root, tmp_path, capsys):
    out, before = write(tmp_path / "b", "b"), contents(root)
    whole = (out / "results.tar.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", None):
        (out / "results.tar.gz").write_bytes(content) if content else (out / "results.tar.gz").unlink()
        assert merged(root, out) == 2
    (out / "index.json").write_text('{"packet": "b"')
    assert merged(root, out) == 2
    (out / "index.json").write_text('{"packet": "b"}')
    assert merged(root, out) == 2
    assert merged(root, tmp_path / "nowhere") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 6
    assert contents(root) == before


def test_one_bad_packet_of_two_writes_nothing(root, tmp_path):
    before = contents(root)
    good, bad = write(tmp_path / "f", "f"), write(tmp_path / "b", "b", tiny=True)
    assert merged(root, good, bad) == 2 and contents(root) == before


def test_a_table_whose_marker_is_gone_is_told(root, tmp_path, capsys):
    path = root / "README.md"
    path.write_text(path.read_text().replace("<!-- end of gpu: results -->", ""))
    before = contents(root)
    assert merged(root, write(tmp_path / "b", "b")) == 2
    assert contents(root) == before
    assert "README.md has 0 times the table" in capsys.readouterr().err


def test_a_command_is_told_without_the_machines_directories():
    words = ["/opt/x/.venv/bin/python3", "--json", "/tmp/jaxvit-gpu/vit_base.json", "npz:/tmp/jaxvit-gpu/data/cifar10"]
    assert [*map(merge._anywhere, words)] == ["python3", "--json", "WORK/vit_base.json", "npz:WORK/data/cifar10"]
    assert merge._anywhere("configs/digits_vit.py") == "configs/digits_vit.py"
