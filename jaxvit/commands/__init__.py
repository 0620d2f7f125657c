"""The commands of the command line, one module each with `run(argv) -> exit code`; `jaxvit.cli` calls them."""
