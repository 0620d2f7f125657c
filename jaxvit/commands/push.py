"""`push`: a run's best checkpoint and a model card, as a repository of the Hugging Face hub."""

import json
import tempfile
from pathlib import Path

from jaxvit.commands.parser import make_parser
from jaxvit.errors import UserError
from jaxvit.runtime import console, files
from jaxvit.runtime.paths import expand

DESCRIPTION = """Publish a run: model.safetensors and config.json, which timm and jaxvit load, and a model card.

  %(prog)s --workdir RUN --to user/name [--private]    uploads; log in first: hf auth login, or HF_TOKEN
  %(prog)s --workdir RUN --to DIR --dry-run            writes the files that would be uploaded"""


def run(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = make_parser("push", DESCRIPTION)
    parser.add_argument("--workdir", metavar="RUN", help="the run: its best checkpoint")
    parser.add_argument("--to", metavar="user/name", help="the repository; with --dry-run a directory")
    parser.add_argument("--dry-run", action="store_true", help="write the files into the directory --to, upload none")
    parser.add_argument("--private", action="store_true", help="a new repository is private; default: public")
    parser.add_argument("--license", default=None, metavar="NAME", help="e.g. apache-2.0; default: its first weights'")
    args = parser.parse_args(argv)
    if args.workdir is None or args.to is None:
        raise UserError("give --workdir RUN and --to user/name, or --to DIR --dry-run")
    from jaxvit.pretrained import repository

    if args.dry_run:
        directory = expand(args.to)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UserError(f"{str(directory)!r} exists and is not empty; expected a new directory")
        _write(args.workdir, directory, f"user/{directory.name}", args.license)
        for path in sorted(directory.iterdir()):
            console.say(f"{path}  {path.stat().st_size:,} bytes")
        return 0
    try:
        repo = repository.parse(f"hf_hub:{args.to}")[0]
    except UserError:
        raise UserError(f"--to {args.to!r} is not a repository; expected user/name, or DIR with --dry-run") from None
    with tempfile.TemporaryDirectory() as directory:
        _write(args.workdir, Path(directory), repo, args.license)
        console.say(upload(Path(directory), repo, private=args.private))
    return 0


def upload(directory: Path, repo: str, *, private: bool = False) -> str:
    """Creates the repository where it is not there, uploads the files as one commit, returns the commit's address."""
    from huggingface_hub import HfApi, get_token

    from jaxvit.pretrained import hub

    if get_token() is None:
        raise UserError(
            f"not logged in, so nothing can be pushed to {repo}; log in first: `hf auth login`, or HF_TOKEN"
        )
    with hub.plain_errors(f"hf_hub:{repo}", None):
        api = HfApi(library_name="jaxvit")
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=directory, commit_message="Upload a model trained by jaxvit")
    return str(done.commit_url)


def _write(workdir: str, directory: Path, repo: str, licence: str | None) -> None:
    from jaxvit.commands import source
    from jaxvit.reports import card
    from jaxvit.reports.runs import read_runs

    given = source.from_run(workdir)
    source.write_safetensors(given, directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    known = given.licence or "" if licence is None else licence
    made = card.write(read_runs([workdir])[0], config, given.name, repo, known, source.timm_reads(directory))
    for name, content in made.items():
        files.write(directory / name, content)
