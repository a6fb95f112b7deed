"""`kdam train` of a clone."""

from kdam_hf.__main__ import run_script

if __name__ == "__main__":
    run_script("train")
