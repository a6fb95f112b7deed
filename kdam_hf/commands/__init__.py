"""What the commands of `kdam` run: one module each.

The first screen of help is its docstring, with the texts of its own options and of the keys of trainings that `KEYS` names.
"""
