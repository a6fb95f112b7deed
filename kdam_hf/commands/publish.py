"""Publish a trained model on the Hub: card, weights, processor, code, results and picture in one commit.

    kdam publish --model outputs/demo/cs --repo_id org/kdam-student --private --revision v1
    kdam publish --model outputs/demo/cs --repo_id org/kdam-student --dry_run outputs/to_publish \\
        --teacher_results outputs/demo/teacher/results.json --baseline_results outputs/demo/none/results.json \\
        --picture outputs/demo/contact_sheet.png

Log in first (`hf auth login`), or set HF_TOKEN. Only what is named goes on the card; local paths and pickles are never
published.
"""

from dataclasses import dataclass
from pathlib import Path

from kdam_hf.errors import KdamValueError
from kdam_hf.hub.publication import make_publication, publish, write_repository
from kdam_hf.training import load_model, parse_recipe
from kdam_hf.training.arguments import option, required
from kdam_hf.training.recipes import Arguments


@dataclass
class PublishingArguments:
    """What is published, where, and what stands beside it on the card."""

    model: str = required("folder that kdam train or kdam distill wrote")
    repo_id: str = required("org/name or user/name on the Hub; created if need be")
    private: bool = option(False, "only owners may see the repository")
    revision: str | None = option(None, "also name this state by a new tag, e.g. v1")
    license: str = option("unknown", "of the weights, e.g. cc-by-nc-4.0; it depends on the training data")
    accept_teacher_license: bool = option(False, "one limits use, or has terms of its own, and you have read them")
    allow_no_results: bool = option(False, "publish without results.json")
    teacher_results: str | None = option(None, "results.json of the teacher")
    baseline_results: str | None = option(None, "results.json of the same student trained without a teacher")
    picture: str | None = option(None, "photo or contact sheet for the card")
    dry_run: str | None = option(None, "write it to this folder, upload nothing", nargs="?", const="to_publish")


def main(argv: Arguments = None) -> str:
    args, _ = parse_recipe((PublishingArguments,), argv, __doc__)
    if not Path(args.model).is_dir():
        raise KdamValueError(f"--model {args.model}: no such folder; give one that kdam train or kdam distill wrote.")
    load_model(args.model)  # refuses what is not a complete model
    names = ("license", "allow_no_results", "accept_teacher_license", "picture", "teacher_results", "baseline_results")
    files = make_publication(args.model, args.repo_id, **{name: getattr(args, name) for name in names})
    if args.dry_run is not None:
        write_repository(files, args.dry_run)
        print(f"Nothing uploaded; {', '.join(files)} written to {args.dry_run}")
        return str(args.dry_run)
    url = publish(args.repo_id, files, args.private, args.revision)
    print(f"Published: {url}")
    return url
