"""The runner: guards, process groups, lanes, and results that are packed after every job."""

import json
import os
import signal
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tools.gpu import jobs, kit, packets, runner
from tools.gpu.jobs import Call, Command, Job, Kind, Packet, Phase

WRITES = "import sys; open(sys.argv[1], 'w').write('found')"
HANDLES = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
child = subprocess.Popen(['sleep', '600'])
pathlib.Path(sys.argv[2]).write_text(str(child.pid))
print('measuring', flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text('rows so far')
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs calls of a packet made of the given phases; returns (index, names in results.tar.gz)."""

    def script(job, place):
        words = (str(place.work / f"{job.name}.txt"), str(place.work / f"{job.name}.pid"))
        return Command((sys.executable, "-c", job.of, *words), (f"{job.name}.txt",))

    monkeypatch.setitem(jobs.KINDS, "script", Kind(script))
    monkeypatch.setattr(runner, "PATIENCE", ((signal.SIGINT, 5), (signal.SIGTERM, 1), (signal.SIGKILL, 1)))
    monkeypatch.setattr(runner, "LEAST", 0.2)
    monkeypatch.setattr(runner, "machine", lambda: {"gpu": "a GPU, 1", "versions": {}, "cores": 2})

    def start(*phases, name="q1", packet="q", seconds=60, words=()):
        call = Call(name, seconds, phases)
        monkeypatch.setitem(packets.CALLS, name, (Packet(packet, "a test", 5, (call,)), call))
        out = tmp_path / name
        (tmp_path / "kit" / name).mkdir(parents=True, exist_ok=True)
        argv = [name, "--out", str(out), "--work", str(tmp_path / "work"), "--kit", str(tmp_path / "kit"), *words]
        assert runner.main(argv) == 0
        with tarfile.open(out / "results.tar.gz") as tar:
            packed = tar.getnames()
        return json.loads((out / "index.json").read_text()), packed

    return start


def states(index):
    return {entry["name"]: entry["state"] for entry in index["jobs"]}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_job_at_its_guard_writes_what_it_has_and_takes_its_children_along(run, tmp_path):
    index, packed = run(Phase(60, ((Job("slow", "script", HANDLES, guard=4), Job("next", "script", WRITES)),)))
    assert states(index) == {"slow": "stopped by its guard", "next": "done"}
    assert packed == ["slow.txt", "next.txt"] and (tmp_path / "work/slow.txt").read_text() == "rows so far"
    pid, end = int((tmp_path / "work/slow.pid").read_text()), time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)


def test_lanes_run_side_by_side_and_a_failure_costs_one_job(run):
    meets = "import sys, time, pathlib\nmine = pathlib.Path(sys.argv[1]); mine.write_text('')\nend = time.time() + 20\n"
    meets += "while time.time() < end and not (mine.parent / OTHER).exists(): time.sleep(0.02)\n"
    meets += "sys.exit(not (mine.parent / OTHER).exists())"
    one, two = (Job(name, "script", meets.replace("OTHER", repr(f"{other}.txt"))) for name, other in ("ab", "ba"))
    bad = Job("bad", "script", "print('out of memory'); raise SystemExit(3)")
    index, _ = run(Phase(60, ((one, bad), (two,))), Phase(60, ((Job("last", "script", WRITES),),)))
    assert states(index) == {"a": "done", "b": "done", "bad": "failed with 3", "last": "done"}
    (entry,) = (entry for entry in index["jobs"] if entry["name"] == "bad")
    assert entry["said"] == ["out of memory"]


def test_results_are_whole_after_each_job(run, tmp_path):
    looks = (
        "import json, sys, tarfile\n"
        f"index = json.load(open({str(tmp_path / 'q1' / 'index.json')!r}))\n"
        f"names = tarfile.open({str(tmp_path / 'q1' / 'results.tar.gz')!r}).getnames()\n"
        "assert [e['name'] for e in index['jobs']] == ['first'] and names == ['first.txt'], (index, names)\n"
        "assert not index['finished']\n"
    )
    index, _ = run(Phase(60, ((Job("first", "script", WRITES), Job("second", "script", looks)),)))
    assert states(index) == {"first": "done", "second": "done"} and index["finished"]


def test_packages_that_were_brought_along_stay_importable(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/brought/by/the/caller")
    writes = "import os, sys; open(sys.argv[1], 'w').write(os.environ['PYTHONPATH'] + ' ' + os.environ['WORD'])"
    run(Phase(60, ((Job("path", "script", writes, env=(("WORD", "own"),)),),)))
    path, word = (tmp_path / "work/path.txt").read_text().split()
    assert path.split(os.pathsep) == [str(tmp_path / "work/site"), "/brought/by/the/caller"] and word == "own"


def test_what_only_warms_a_cache_ends_at_its_line(run):
    speaks = "import time\nfor n in range(600): print(f'epoch {n}/300 done', flush=True); time.sleep(0.05)"
    index, _ = run(Phase(60, ((Job("warm", "script", speaks, until=r"epoch 2/300 "),),)))
    assert states(index) == {"warm": "stopped as meant"}


def test_a_job_without_time_is_left_out_and_a_later_call_takes_it(run):
    late = Job("late", "script", WRITES, guard=600)
    sleeps = Job("sleeps", "script", "import time; time.sleep(0.5)", guard=10)
    index, _ = run(Phase(60, ((sleeps, late),)), seconds=30)
    assert states(index) == {"sleeps": "done", "late": "left out: no time"}
    index, _ = run(Phase(60, ((sleeps, late._replace(guard=10)),)), name="q2")
    assert states(index)["late"] == "done" and [e["name"] for e in index["jobs"]].count("sleeps") == 1


def test_a_run_may_outlive_its_call_and_a_later_one_fetches_it(run):
    slow = "import sys, time; time.sleep(4); open(sys.argv[1], 'w').write('at last')"
    index, packed = run(Phase(60, ((Job("long", "script", slow, outlives=True, guard=1),),)))
    assert states(index) == {"long": "goes on"} and packed == []
    waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.1)\ntime.sleep(0.2)"
    index, packed = run(Phase(60, ((Job("long", "script", waits),),)), name="q2")
    assert states(index) == {"long": "done"} and packed == ["long.txt"]


def test_a_study_finds_the_directories_that_it_is_told_of_whatever_was_brought(run, tmp_path):
    run(Phase(60, ((Job("one", "script", WRITES),),)))
    place = jobs.Place(tmp_path / "work", packets.MODELS)
    told = jobs.study(packets.D8.jobs()["large"], place).argv
    assert Path(told[told.index("--checkpoints") + 1]).is_dir()


def test_what_outlives_a_call_and_fails_is_not_waited_for(run, tmp_path):
    dies = "import time; time.sleep(1.5); raise SystemExit(1)"
    run(Phase(60, ((Job("long", "script", dies, outlives=True, guard=1),),)))
    (tmp_path / "work" / "long.pid").write_text("0")  # here the runner is its parent and would have to bury it
    index, _ = run(Phase(60, ((Job("long", "wait", "summary.json"),),)), name="q2")
    assert states(index) == {"long": "failed with 1"}
    assert index["jobs"][-1]["said"] == ["it has ended without its last file"]


def test_jobs_run_from_a_copy_of_the_code(run, tmp_path):
    writes = "import os, sys; open(sys.argv[1], 'w').write(os.getcwd())"
    run(Phase(60, ((Job("where", "script", writes),),)))
    home = tmp_path / "work" / "tree"
    assert (tmp_path / "work/where.txt").read_text() == str(home)
    assert (home / "main.py").is_file() and kit.digest(home) == kit.digest(runner.ROOT)


def test_another_packet_on_the_same_machine_begins_an_index_of_its_own(run):
    run(Phase(60, ((Job("one", "script", WRITES),),)))
    index, packed = run(Phase(60, ((Job("two", "script", WRITES),),)), name="p1", packet="p")
    assert states(index) == {"two": "done"} and packed == ["two.txt"]


def test_only_some_jobs_and_unknown_ones(run, capsys):
    lane = (Job("one", "script", WRITES), Job("two", "script", WRITES))
    index, _ = run(Phase(60, (lane,)), words=("--only", "two"))
    assert states(index) == {"two": "done"}
    with pytest.raises(SystemExit):
        runner.main(["q1", "--only", "three"])
    assert "q1 has no job three; it has one, two" in capsys.readouterr().err


def test_a_call_that_lacks_what_it_needs_does_not_begin(tmp_path, capsys):
    words = ["b2", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--kit", str(tmp_path / "kit")]
    with pytest.raises(SystemExit) as stop:
        runner.main(words)
    assert stop.value.code == 2 and "`prepare b` fills it" in capsys.readouterr().err
    (tmp_path / "kit" / "b2").mkdir(parents=True)
    assert runner.main(words) == 2
    said = "error: no data/cifar100/train.npz: an earlier call of packet b brings it"
    assert capsys.readouterr().err.strip() == said
    assert kit.lacking(tmp_path, [], packets.DEIT) == ["kit/weights/deit_tiny_patch16_224.safetensors"]
    assert kit.lacking(tmp_path, [], packets.TAUGHT) == ["kit/teacher/config.json"]


def test_what_comes_back_keeps_within_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "MOST", 3000)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "predictions.npz").write_bytes(os.urandom(5000))
    runner.pack(tmp_path / "results.tar.gz", tmp_path, ("*.json", "*.npz"))
    with tarfile.open(tmp_path / "results.tar.gz") as tar:
        assert tar.getnames() == ["summary.json"]
    (tmp_path / "cache").mkdir()
    for name, size in (("small", 500), ("large", 5000)):
        (tmp_path / "cache" / f"{name}-cache").write_bytes(b"x" * size)
    runner.keep_programs(tmp_path, tmp_path / "cache")
    with tarfile.open(tmp_path / "jaxcache.tar") as tar:
        assert tar.getnames() == ["small-cache"]
