"""What XLA has found by trying kernels is kept from call to call, and nothing else of a cache is."""

import io
import tarfile

from tools.gpu import kit, tuned

KERNEL = "xla_gpu_per_fusion_autotune_cache_dir/1f/"


def cache(path, files):
    """A tar as a call brings it back."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_results_of_several_calls_come_together_and_go_along(tmp_path):
    first = cache(
        tmp_path / "1.tar", {f"{KERNEL}a.pb": b"1", "jit_step-cache": b"a program", f"{KERNEL}b": b"2" * 5000}
    )
    second = cache(tmp_path / "2.tar", {f"{KERNEL}a.pb": b"other", f"{KERNEL}c.pb": b"3"})
    assert [tuned.keep(path, tmp_path) for path in (first, second, second, tmp_path / "none.tar")] == [1, 1, 0, 0]
    brought, work = tmp_path / "brought", tmp_path / "work"
    brought.mkdir()
    (brought / tuned.FILE.name).write_bytes((tmp_path / tuned.FILE).read_bytes())
    assert [*kit.set_up(brought, work, [], {})] == []
    found = {path.name: path.read_bytes() for path in (work / "jaxcache" / KERNEL).iterdir()}
    assert found == {"a.pb": b"1", "c.pb": b"3"}
