"""GPUs that this machine does not have, as XLA's compiler expects them; the `cuda` extra brings the compiler."""

from typing import Any

from jaxvit.plan.chips import Topology

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
# There is nothing to time kernels on, and without times Triton's matmuls may find no tiling: cuBLAS has them all.
FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"

# XLA's GpuTargetConfigProto. The sizes of a Hopper multiprocessor are those of NVIDIA's CUDA C++ Programming Guide,
# table "Technical Specifications per Compute Capability", 9.0; L2 cache, clock and count those of the H100 SXM's
# architecture paper. The H200 is the same processor with other memory.
_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 8 }}
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{kind}"
"""


def devices(topology: Topology) -> list[Any]:
    """Returns descriptions of the node's GPUs, enough to compile for."""
    from jax.experimental import topologies

    chip = topology.chip
    described = topologies.get_topology_desc(
        topology_name=topology.name,
        platform="cuda",
        target_config=_HOPPER.format(kind=chip.kind, bandwidth=chip.memory_bandwidth, memory=chip.memory),
        topology=f"1x1x{topology.chips}",  # processes, hosts of each, GPUs of each
    )
    return list(described.devices)
