"""What the commands of `kdam` run: one module each; its docstring and the texts of its options are the first screen of help."""
