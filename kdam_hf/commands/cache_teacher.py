"""Run the teacher once over the fixed crops that `kdam distill` will replay.

    kdam cache-teacher --config rooms_student --teacher outputs/teacher --teacher_cache outputs/cache --teacher_views 4

Takes the keys of `kdam distill`, which does the same by itself on first use. The disk space it takes is printed before
anything is written; several processes (--num_processes N) share the work; run again after an interruption, it goes on. On
a complete cache it checks every record and makes damaged ones again. `--help all` lists every key.
"""

from kdam_hf.commands.distill import GROUPS, OF_PHOTOS
from kdam_hf.training import fill_cache, parse_recipe
from kdam_hf.training.runs import open_splits, training_crops

KEYS = """
    teacher teacher_cache teacher_views teacher_cache_dtype teacher_precision teacher_batch_size config dataset data_dir tasks
    crop_height crop_width"""


def main(argv: list[str] | None = None) -> None:
    data, model, distillation, args, _ = parse_recipe(GROUPS, argv, __doc__, OF_PHOTOS)
    with args.main_process_first(local=False, desc="opening the data"):
        train, _, _, teaching = open_splits(data, distillation)
    _, config, crops = training_crops(train, data, model, args)
    cache = fill_cache(distillation, teaching, crops, config, args, verify=True)
    if args.process_index == 0:
        print(f"teacher cache {cache.folder}: complete, {cache.views} views of {cache.images} images")
