"""How an array lies in memory."""

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Array = jax.Array


@jax.custom_jvp
def row_major(x: Array) -> Array:
    """The same tokens [b, n, d], which XLA on a GPU may not keep in another order where they are differentiated.

    Else the gradients of pooling and of the position table can make it keep all tokens of all blocks, and their
    gradients, with the images or the tokens innermost, and transpose them on the way to and from each matmul.
    A program of the forward pass alone has no such constraint, which could not be exported.
    """
    return x


@row_major.defjvp
def _row_major_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return row_major_p.bind(*primals), row_major_p.bind(*tangents)


def _constrained(x: Array) -> Array:
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


row_major_p = Primitive("row_major")
row_major_p.def_impl(lambda x: x)
row_major_p.def_abstract_eval(lambda x: x)
ad.deflinear2(row_major_p, lambda dx, _: (row_major_p.bind(dx),))
batching.primitive_batchers[row_major_p] = lambda args, axes: (row_major_p.bind(*args), axes[0])
mlir.register_lowering(row_major_p, lambda context, x: [x])
for _platform in ("cuda", "rocm"):
    mlir.register_lowering(row_major_p, mlir.lower_fun(_constrained, multiple_results=False), platform=_platform)
