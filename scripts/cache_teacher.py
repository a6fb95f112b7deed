"""`kdam cache-teacher` of a clone."""

from kdam_hf.commands.cache_teacher import main
from kdam_hf.training import run_command

if __name__ == "__main__":
    run_command(main)
