"""`leaks`: images of a data set that occur in several splits, or in train with several labels; nothing is trained."""

from jaxvit.commands.parser import directory_to_write, make_parser
from jaxvit.errors import UserError

DESCRIPTION = """Find duplicates between the splits of a data set, as training does with data.check=leaks.

  %(prog)s --data folder:photos --out leaks       writes leaks.csv and leaks.png there"""


def run(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    parser = make_parser("leaks", DESCRIPTION)
    parser.add_argument("--data", metavar="NAME", help="digits, folder:PATH, npz:PATH, csv:FILE, ...")
    parser.add_argument("--columns", metavar="WORDS", help="columns of csv:FILE: file=path,label=species")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets")
    parser.add_argument("--out", type=directory_to_write, metavar="DIR", help="where to write leaks.csv and leaks.png")
    args = parser.parse_args(argv)
    if args.data is None or args.out is None:
        raise UserError("expected --data NAME and --out DIR, for example --data folder:photos --out leaks")
    from jaxvit import data
    from jaxvit.data import doubles
    from jaxvit.inference.splits import check_read
    from jaxvit.runtime import console
    from jaxvit.train import leaks

    check_read([args.data], columns=args.columns, data_dir=args.data_dir)
    dataset = data.load_dataset(args.data, data_dir=args.data_dir, columns=args.columns, to_train=False)
    for note in dataset.notes:
        console.err.print(f"data   {note}")
    found = doubles.find({split.name: split for split in (dataset.train, dataset.val, dataset.test)})
    args.out.mkdir(parents=True, exist_ok=True)
    leaks.write(args.out, dataset, found)
    for line in leaks.lines(dataset, found):
        console.say(line)
    if found:
        console.say(f"{len(found):,} pairs, listed in {args.out / leaks.TABLE} and shown in {args.out / leaks.PICTURE}")
    return 0
