"""What `kdam COMMAND` runs, one module each, with a `main(argv)`; the docstring is the first screen of its `--help`."""
