"""Check a dataset on disk, report what it holds, and write it decoded, so that training reads it fast.

    kdam prepare --dataset nyud_v2 --data_dir DIR --output_dir outputs/nyud_v2
    kdam prepare --dataset pascal_context --data_dir PASCAL_MT.tgz --output_dir outputs/pascal --num_proc 8
    kdam prepare --dataset folder --data_dir DIR --check_only
    kdam prepare --dataset hub --data_dir org/name --output_dir outputs/name --columns image=photo semseg=mask

Every sample is read once. The report names each file at fault, and is kept as report.json in output_dir; with a fault the
exit code is 1 and the split is not there. Run again, it goes on with what is left. `--help all` lists every key.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_loaders import PreparedDataset
from dataset_loaders.archives import extract, is_archive
from dataset_loaders.inspection import SplitReport, inspect_split
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.io import make_folder, source_parts, write_json
from kdam_hf.tasks import with_options
from kdam_hf.training import SourceArguments, parse_recipe
from kdam_hf.training.arguments import available_cores, option
from kdam_hf.training.report import versions
from kdam_hf.training.sources import open_split, prepare_split

DATASETS = ("nyud_v2", "pascal_context", "folder", "hub")
KEYS = "dataset data_dir tasks columns layout data_options task_options"


@dataclass
class PreparationArguments:
    """What is written, and with how many processes."""

    output_dir: str | None = option(None, "where prepared data and report.json go")
    splits: list[str] | None = option(None, "train and val by default; of hub also shares of a split (docs/data.md)")
    check_only: bool = option(False, "check and report, prepare nothing")
    num_proc: int = option(available_cores(), "processes that read")
    sha256: str | None = option(None, "of an archive in data_dir, as its publisher states it")


def main(argv: list[str] | None = None) -> None:
    data, args, _ = parse_recipe((SourceArguments, PreparationArguments), argv, __doc__)
    check_arguments(data, args)
    split_names = args.splits or ["train", "val"]
    output = None if args.output_dir is None else Path(args.output_dir)
    if output is not None:
        make_folder(output)
        if is_archive(data.data_dir):
            unpacked = output / "unpacked" / Path(data.data_dir).name.split(".")[0]
            data.data_dir = str(extract(data.data_dir, unpacked, sha256=args.sha256))
    contents = [check_split(data, args, split) for split in split_names]
    if output is not None:
        write_json(output / "report.json", {"splits": contents, "versions": versions()})
    if problems := sum(len(content["problems"]) for content in contents):
        print(f"\n{problems} problems" + ("" if output is None else f", all in {output / 'report.json'}"))
        sys.exit(1)
    if not args.check_only:
        splits = zip(("--train_split", "--eval_split"), split_names, ("train", "val"), strict=False)
        named = "".join(f" {key} '{split}'" for key, split, usual in splits if split != usual)
        print(f"\nPrepared. Train with: --dataset {data.dataset} --data_dir {output}{named}")


def check_arguments(data: SourceArguments, args: PreparationArguments) -> None:
    """Refuse what cannot be meant."""
    if data.dataset not in DATASETS or data.data_dir is None or data.cache_dir is not None:
        raise KdamValueError(
            f"dataset={data.dataset}, data_dir={data.data_dir}, cache_dir={data.cache_dir}; expected --dataset, one of "
            f"{', '.join(DATASETS)}, --data_dir, where it is, and --output_dir, where to; not --cache_dir."
        )
    if args.sha256 is not None and not is_archive(data.data_dir):
        raise KdamValueError(f"sha256 is that of an archive, and data_dir {data.data_dir} is none; leave it out.")
    if args.output_dir is None and (is_archive(data.data_dir) or not args.check_only):
        raise KdamValueError("give --output_dir: where prepared data and report.json go, and what an archive holds.")
    output, source = Path(args.output_dir or "/").resolve(), Path(source_parts(data.data_dir)[0]).resolve()
    if output == source or source in output.parents:
        raise KdamValueError(f"output_dir {output} lies in data_dir {source}, which stays as it is; choose another.")


def check_split(data: SourceArguments, args: PreparationArguments, split: str) -> dict[str, Any]:
    """Check one split, print what it holds, prepare it unless something is wrong; the split's part of report.json."""
    try:
        dataset = open_split(data, split, strict=False)
    except DataIntegrityError as error:
        print(f"{data.dataset} {split}\n  PROBLEM: {error}")
        return {"dataset": data.dataset, "split": split, "problems": [str(error)]}
    if isinstance(dataset, PreparedDataset):
        raise KdamValueError(f"{data.data_dir} is prepared already; give the dataset it was made from.")
    with_options(dataset.tasks, data.task_options or ())  # refuses those of other tasks
    report = SplitReport(dataset)
    if args.check_only or report.problems:
        report = inspect_split(dataset, args.num_proc)
    else:
        try:
            prepare_split(dataset, replace(data, cache_dir=args.output_dir), args.num_proc, report)
        except DataIntegrityError as error:
            if not report.problems:
                raise
            print(error)
    print(report.text(), flush=True)
    return report.as_json()
