"""`convert`: weights of any layout, or a run's best checkpoint, become the two files that timm loads."""

from jaxvit.commands import average
from jaxvit.commands.parser import (
    add_target,
    add_temperature,
    add_weights,
    check_target,
    make_parser,
    not_negative,
    positive,
    size,
)

DESCRIPTION = """Write model.safetensors and config.json, which timm and jaxvit load.

  %(prog)s --model NAME --checkpoint FILE --to DIR     a weight file of any known layout (timm, torchvision,
                                                       Hugging Face, Google's .npz), adapted on request
  %(prog)s --from WORKDIR --to DIR                     the best checkpoint of a run
  %(prog)s --average RUN RUN ... --to DIR              the mean of the weights of several runs, or of weight files
                                                       with --model NAME; --soup keeps those that help"""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("convert", DESCRIPTION)
    parser.add_argument("--from", dest="workdir", metavar="WORKDIR", help="a run: its best checkpoint")
    parser.add_argument("--model", metavar="NAME", help="or a timm name, or hf_hub:user/name@revision")
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights: a file or a directory; default: the hub")
    add_weights(parser)
    parser.add_argument(
        "--num-classes", type=not_negative, metavar="N", help="number of classes of a new classifier; 0: features only"
    )
    parser.add_argument(
        "--image-size", type=size, metavar="N", help="pixels, 224 or 192x256; resamples the position embeddings"
    )
    parser.add_argument(
        "--in-channels", type=positive, metavar="N", help="input channels; adapts the first convolution"
    )
    add_temperature(parser)
    average.add_options(parser)
    add_target(parser)
    args = parser.parse_args(argv)
    if args.average or args.soup:
        return average.run(args)
    average.refuse(args)
    from jaxvit.commands import source

    changes = {word: getattr(args, word) for word in ("num_classes", "image_size", "in_channels", "weights")}
    changes = {word: value for word, value in changes.items() if value is not None}
    source.check_choice(args.workdir, args.model, args.checkpoint, "--from")
    target = check_target(args, source.FILES)
    if args.workdir is not None:
        source.check_bare(args.workdir, [args.model, args.checkpoint, *changes])
        given = source.from_run(args.workdir, args.temperature)
    else:
        given = source.from_file(args.model, args.checkpoint, args.temperature, **changes)
    source.write_and_say(given, target)
    return 0
