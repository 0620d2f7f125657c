"""What a compiled program moves, by its text."""

from jaxvit.plan import traffic

HLO = """\
%all-reduce-scatter.1 (input: f32[8,4]) -> f32[2,4] {
  %all-reduce.3 = f32[8,4]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %all-gather.6 = bf16[16,4]{1,0:T(8,128)S(1)} all-gather(%x), replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
  %ar = (f32[10]{0}, f32[30]{0}) all-reduce(%a, %b), replica_groups=[1,8]<=[8], to_apply=%add
  %ags = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1},{2,3}}, dimensions={0}
  %agd = f32[8]{0} all-gather-done(%ags)
  %one = f32[10]{0} all-reduce(%a), replica_groups={{0},{1}}, to_apply=%add
  %fusion = f32[10]{0} fusion(%all-reduce.3), calls=%all-reduce-scatter.1
}
"""


LOOP = """\
%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %near = f32[8]{0:S(1)} copy(%p)
  ROOT %ar = f32[8]{0} all-reduce(%near), replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %gather = f32[2]{0} fusion(%a, %a), kind=kLoop, calls=%somewhere
  ROOT %w = f32[8]{0} while(%a), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


# As XLA writes matmuls and convolutions for a GPU: results and scratch; bytes that are a result, or alone, are data.
CALLS = """\
ENTRY %main (a: bf16[64,32], b: bf16[32,16]) -> bf16[64,16] {
  %a = bf16[64,32]{1,0} parameter(0)
  %b = bf16[32,16]{1,0} parameter(1)
  %gemm = (bf16[64,16]{1,0}, s8[33554432]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul"
  %dot = bf16[64,16]{1,0} get-tuple-element(%gemm), index=0
  %conv = (bf16[64,8]{1,0}, u8[4096]{0}) custom-call(%dot), custom_call_target="__cudnn$convForward"
  %pair = (s8[100]{0}, s8[4,8]{1,0}) custom-call(%dot), custom_call_target="two_results"
  %whole = u8[64]{0} custom-call(%dot), custom_call_target="one_result"
  ROOT %out = bf16[64,16]{1,0} negate(%dot)
}
"""


def test_traffic_is_read_from_the_program():
    found = traffic.count(HLO, 8)
    assert found["reduce-scatter"] == {"operations": 1, "bytes": 32.0, "sent": 32.0 * 3}
    assert found["all-gather"] == {"operations": 2, "bytes": 128.0 + 32.0, "sent": 128.0 * 3 / 4 + 32.0 / 2}
    assert found["all-reduce"] == {"operations": 1, "bytes": 160.0, "sent": 160.0 * 2 * 7 / 8}


def test_loops_count_each_time_and_memory_on_the_chip_not_at_all():
    assert traffic.count(LOOP, 2)["all-reduce"] == {"operations": 5, "bytes": 160.0, "sent": 160.0}
    assert traffic.memory_bytes(LOOP) == (8 + 32) + 5 * (32 + 32)  # the gather, and in the loop one read and one write


def test_scratch_of_libraries_is_no_traffic():
    a, b, dot = 64 * 32 * 2, 32 * 16 * 2, 64 * 16 * 2
    assert traffic.memory_bytes(CALLS) == (a + b + dot) + (dot + 64 * 8 * 2) + (dot + 132) + (dot + 64) + 2 * dot


SCANNED = """\
%inner (p0: f32[24,8,8], p1: s32[]) -> f32[8,8] {
  %p0 = f32[24,8,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %ds = f32[1,8,8]{2,1,0} dynamic-slice(%p0, %p1, %p1, %p1), dynamic_slice_sizes={1,8,8}
  ROOT %b = f32[8,8]{1,0} bitcast(%ds)
}

%reads (a0: f32[24,8,8], a1: s32[], a2: f32[8,8]) -> f32[8,8] {
  %a0 = f32[24,8,8]{2,1,0} parameter(0)
  %a1 = s32[] parameter(1)
  %a2 = f32[8,8]{1,0} parameter(2)
  %one = f32[8,8]{1,0} fusion(%a0, %a1), kind=kLoop, calls=%inner
  ROOT %sum = f32[8,8]{1,0} add(%one, %a2)
}

%writes (b0: f32[24,8,8], b1: f32[8,8], b2: s32[]) -> f32[24,8,8] {
  %b0 = f32[24,8,8]{2,1,0} parameter(0)
  %b1 = f32[8,8]{1,0} parameter(1)
  %b2 = s32[] parameter(2)
  %up = f32[1,8,8]{2,1,0} bitcast(%b1)
  ROOT %dus = f32[24,8,8]{2,1,0} dynamic-update-slice(%b0, %up, %b2, %b2, %b2)
}

%body (s: (s32[], f32[24,8,8], f32[24,8,8], f32[8,8])) -> (s32[], f32[24,8,8], f32[24,8,8], f32[8,8]) {
  %s = (s32[], f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %w = f32[24,8,8]{2,1,0} get-tuple-element(%s), index=1
  %g = f32[24,8,8]{2,1,0} get-tuple-element(%s), index=2
  %h = f32[8,8]{1,0} get-tuple-element(%s), index=3
  %read = f32[8,8]{1,0} fusion(%w, %n, %h), kind=kLoop, calls=%reads
  %ar = f32[8,8]{1,0} all-reduce(%read), replica_groups={{0,1}}, to_apply=%add
  ROOT %write = f32[24,8,8]{2,1,0} fusion(%g, %ar, %n), kind=kLoop, calls=%writes
}

%below (s: (s32[], f32[24,8,8], f32[24,8,8], f32[8,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(24)
  %s.1 = (s32[]{:T(128)}, f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) parameter(0)
  %n.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%n.1, %limit), direction=LT, metadata={op_name="while/cond/lt"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %loop = (s32[], f32[24,8,8]{2,1,0}, f32[24,8,8]{2,1,0}, f32[8,8]{1,0}) while(%a), condition=%below, body=%body
}
"""


def test_a_loop_over_blocks_moves_a_slice_at_a_time_and_its_trips_are_in_its_condition():
    """As the TPU compiler writes it: no trip count, stacked weights read and gradients written within fusions."""
    assert traffic.count(SCANNED, 2)["all-reduce"] == {"operations": 24, "bytes": 24 * 256.0, "sent": 24 * 256.0}
    read, reduced, written = 256 + 4 + 256 + 256, 256 + 256, 256 + 4 + 256
    assert traffic.memory_bytes(SCANNED) == 24 * (read + reduced + written)
