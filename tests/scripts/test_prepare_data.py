"""scripts/prepare_data.py on miniature trees: its report, its cache, faults, interruptions, and that data stays untouched."""

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import trees

from dataset_loaders import PreparedDataset, check_sample, open_dataset
from dataset_loaders.files import FileDataset
from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.training import SourceArguments, run_command
from kdam_hf.training.runs import open_split

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"
spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
prepare_data = importlib.util.module_from_spec(spec)
sys.modules["prepare_data"] = prepare_data  # dataclasses look their module up
spec.loader.exec_module(prepare_data)


def name_of(layout):
    return "folder" if layout == "folder" else "pascal_context" if layout.startswith("pascal") else "nyud_v2"


def prefix_of(layout):
    """Of the folders of a cache: the name of the dataset."""
    return "rooms" if layout == "folder" else name_of(layout)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Each layout once: `good("A")` is (root, truth)."""
    written = {}

    def get(layout):
        if layout not in written:
            root = tmp_path_factory.mktemp("good") / layout
            written[layout] = root, trees.write_tree(layout, root, 3, 3)
        return written[layout]

    return get


def prepare(layout, root, output=None, *arguments, num_proc=1):
    where = [] if output is None else ["--output_dir", str(output)]
    prepare_data.main(
        ["--dataset", name_of(layout), "--data_dir", str(root), *where, "--num_proc", str(num_proc), *arguments]
    )


def fails(*arguments, **kwargs):
    """The script ends with exit code 1: something is wrong with the data."""
    with pytest.raises(SystemExit) as caught:
        prepare(*arguments, **kwargs)
    assert caught.value.code == 1


def report_of(output):
    report = json.loads((output / "report.json").read_text())
    return {content["split"]: content for content in report["splits"]}


def snapshot(root):
    """Names, sizes, times and contents below a folder."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        )
        for path in [root, *sorted(root.rglob("*"))]
    }


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def reads(monkeypatch):
    """(split, index) of every sample read from files in this process."""
    read, original = [], FileDataset.__getitem__

    def counted(self, index):
        read.append((self.split, index))
        return original(self, index)

    monkeypatch.setattr(FileDataset, "__getitem__", counted)
    return read


# ---- good data ----


@pytest.mark.parametrize("layout", trees.LAYOUTS)
def test_every_layout_is_reported_truly_packed_and_left_as_it_is(good, tmp_path, layout, capsys):
    root, truth = good(layout)
    before = snapshot(root)
    prepare(layout, root, tmp_path)
    assert snapshot(root) == before
    assert visible(tmp_path) == sorted(["report.json", f"{prefix_of(layout)}-train", f"{prefix_of(layout)}-val"])
    report, printed = report_of(tmp_path), capsys.readouterr().out
    for split, scenes in truth.items():
        content = report[split]
        assert (content["dataset"], content["images"], content["usable"]) == (prefix_of(layout), 3, 3)
        assert content["problems"] == []
        assert f"{prefix_of(layout)} {split}: 3 of 3 images usable" in printed
        assert content["origin"] in printed
        check_facts(content, scenes, derived={"normals", "edge"} if layout == "O" else ())
        check_packed(open_dataset(name_of(layout), split, tmp_path), open_dataset(name_of(layout), split, root))
    assert f"Train with: --dataset {name_of(layout)} --data_dir {tmp_path}" in printed


def check_facts(content, scenes, derived):
    """The numbers of a report against the truth of the scenes, by other means than the tasks'."""
    sizes = ["{}x{}".format(*scene.image.shape[:2]) for scene in scenes]
    assert content["sizes"] == {size: sizes.count(size) for size in sizes}
    for name, facts in content["tasks"].items():
        if name in derived:
            continue
        labels = [scene.labels[name] for scene in scenes if name in scene.labels]
        if content["dataset"] == "pascal_context":
            labels = [label for label in labels if label.dtype != np.uint8 or (label != 255).any()]
        assert facts["images"] == len(labels), name
        assert facts["pixels"] == sum(label.shape[0] * label.shape[1] for label in labels)
        if name == "depth":
            metres = np.concatenate([label[label > 0] for label in labels])
            found = facts["valid"], facts["lowest"], facts["highest"]
            assert found == pytest.approx((metres.size, metres.min(), metres.max()), rel=1e-6)
        elif name == "normals":
            assert facts["valid"] == sum(int((label != 0).any(-1).sum()) for label in labels)
        else:
            ids, counts = np.unique(np.concatenate([label[label != 255] for label in labels]), return_counts=True)
            assert facts["valid"] == counts.sum()
            assert {k: n for k, n in enumerate(facts["counts"]) if n} == dict(zip(ids, counts, strict=True)), name


def check_packed(packed, source):
    """The prepared split is the one on disk: ids and edges exactly, depth to half a millimetre, normals to 0.002 degrees."""
    assert isinstance(packed, PreparedDataset)
    assert [task.spec() for task in packed.tasks] == [task.spec() for task in source.tasks]
    assert len(packed) == len(source)
    for k in range(len(source)):
        mine, theirs = check_sample(packed[k], packed.tasks), source[k]
        assert (mine["id"], set(mine["labels"])) == (theirs["id"], set(theirs["labels"]))
        np.testing.assert_array_equal(mine["image"], theirs["image"])
        for name, label in theirs["labels"].items():
            found = mine["labels"][name]
            if label.dtype == np.uint8:
                np.testing.assert_array_equal(found, label)
                continue
            np.testing.assert_array_equal(
                found == 0 if label.ndim == 2 else found.any(-1), label == 0 if label.ndim == 2 else label.any(-1)
            )
            np.testing.assert_allclose(found, label, atol=0.51e-3 if label.ndim == 2 else 2e-5)


def test_only_the_wanted_splits_and_tasks_are_prepared(good, tmp_path):
    root, _ = good("C")
    prepare("C", root, tmp_path, "--splits", "val", "--tasks", "depth")
    assert visible(tmp_path) == ["nyud_v2-val", "report.json"]
    assert list(report_of(tmp_path)["val"]["tasks"]) == ["depth"]
    assert [task.name for task in open_dataset("nyud_v2", "val", tmp_path).tasks] == ["depth"]


def test_a_prepared_folder_is_what_training_opens(good, tmp_path):
    root, truth = good("A")
    prepare("A", root, tmp_path)
    data = SourceArguments(dataset="nyud_v2", data_dir=str(tmp_path))
    np.testing.assert_array_equal(open_split(data, "val")[2]["image"], truth["val"][2].image)
    with pytest.raises(KdamValueError, match=r"is prepared already; give the dataset it was made from"):
        prepare("A", tmp_path, tmp_path.with_name("again"))


def test_check_only_writes_a_report_and_no_cache(good, tmp_path, capsys):
    root, _ = good("B")
    before = snapshot(root)
    prepare("B", root, tmp_path / "out", "--check_only")
    assert visible(tmp_path / "out") == ["report.json"]
    prepare("B", root, None, "--check_only")  # a report on the screen alone
    printed = capsys.readouterr().out
    assert printed.count("nyud_v2 val: 3 of 3 images usable") == 2
    assert "Train with" not in printed
    assert snapshot(root) == before
    prepare("B", root, tmp_path / "cache")
    assert report_of(tmp_path / "out") == report_of(tmp_path / "cache")


# ---- again, and after an interruption ----


def test_a_second_run_reads_nothing_and_reports_the_same(good, tmp_path, reads, capsys):
    root, _ = good("A")
    prepare("A", root, tmp_path)
    assert len(reads) == 6
    first, written, printed = report_of(tmp_path), snapshot(tmp_path / "nyud_v2-val"), capsys.readouterr().out
    reads.clear()
    prepare("A", root, tmp_path)
    assert reads == []
    assert report_of(tmp_path) == first
    assert snapshot(tmp_path / "nyud_v2-val") == written
    assert capsys.readouterr().out == printed


def test_the_same_folder_under_another_name_is_the_same_data(good, tmp_path, reads, monkeypatch):
    root, _ = good("A")
    prepare("A", root, tmp_path)
    reads.clear()
    monkeypatch.chdir(root.parent)
    for name in (f"{root}/", root.name, f"./{root.name}/../{root.name}"):
        prepare("A", name, tmp_path)
    assert reads == []


@pytest.mark.parametrize("killed_at", [0, 2, 4])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, killed_at, reads):
    root, output = tmp_path / "tree", tmp_path / "out"
    trees.write_tree("C", root, 5, 2)
    prepare("C", root, tmp_path / "whole")
    reads.clear()

    def run():
        original = FileDataset.__getitem__

        def dies(self, index):
            if (self.split, index) == ("train", killed_at):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, index)

        FileDataset.__getitem__ = dies
        prepare("C", root, output)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert visible(output) == []
    prepare("C", root, output)
    assert reads == [("train", k) for k in range(killed_at, 5)] + [("val", 0), ("val", 1)]
    assert report_of(output) == report_of(tmp_path / "whole")
    for split in ("train", "val"):
        check_packed(open_dataset("nyud_v2", split, output), open_dataset("nyud_v2", split, root))


def test_after_a_correction_only_what_changed_is_read_again(tmp_path, reads):
    root, output = tmp_path / "tree", tmp_path / "out"
    truth = trees.write_tree("C", root, 2, 4)
    path = root / f"segmentation/{truth['val'][2].id}.png"
    content = path.read_bytes()
    trees.truncate(path)
    fails("C", root, output)
    path.write_bytes(content)  # of another size: the version of the split is another
    reads.clear()
    prepare("C", root, output)
    assert reads == [("val", 2)]
    check_packed(open_dataset("nyud_v2", "val", output), open_dataset("nyud_v2", "val", root))


# ---- faults ----


def test_a_tree_with_many_faults_is_reported_row_by_row(tmp_path, capsys):
    root, output = tmp_path / "NYUD_MT", tmp_path / "out"
    truth = trees.write_tree("B", root, 2, 8)
    ids = [scene.id for scene in truth["val"]]
    trees.truncate(root / f"images/{ids[0]}.jpg")
    trees.set_label(root / f"segmentation/{ids[1]}.png")
    trees.set_nan(root / f"depth/{ids[2]}.npy")
    trees.depth_as_millimetres(root / f"depth/{ids[3]}.npy")
    trees.normals_as_0_to_255(root / f"normals/{ids[4]}.npy")
    trees.pickle_npy(root / f"edge/{ids[5]}.npy")
    trees.add_id(root / "gt_sets/val.txt")
    trees.add_stray_file(root / f"images/{ids[6]}.jpg", "8888")
    expected = [
        "images: 1 files belong to no split, first 8888.jpg",
        f"images/{ids[0]}.jpg: not a readable",
        f"segmentation/{ids[1]}.png: semseg label holds [41]; expected 1..40 or 0",
        f"depth/{ids[2]}.npy: depth holds NaN",
        f"depth/{ids[3]}.npy: depth holds ",
        f"normals/{ids[4]}.npy: ",
        f"edge/{ids[5]}.npy: not a readable .npy array",
        "images: no file for id '9999'; expected 9999.jpg",
    ]
    before = snapshot(root)
    for arguments in (["--check_only"], []):
        fails("B", root, output, *arguments)
        report = report_of(output)
        for problem, words in zip(report["val"]["problems"], expected, strict=True):
            assert f"{root}/{words}" in problem
        assert (report["val"]["images"], report["val"]["usable"]) == (9, 2)
        printed = capsys.readouterr().out
        assert printed.count("PROBLEM") == 8 + 1
        assert f"9 problems, all in {output / 'report.json'}" in printed
        assert "Train with" not in printed
        whole = [truth["val"][k].labels["depth"] for k in (6, 7)]
        assert report["val"]["tasks"]["depth"]["valid"] == sum(int((label > 0).sum()) for label in whole)
        # the list of train is whole, yet a file that no list knows is seen from there too
        assert [f"{root}/{expected[0]}" in problem for problem in report["train"]["problems"]] == [True]
        assert report["train"]["usable"] == 2
        assert visible(output) == ["report.json"]
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("layout", "file", "says"),
    [
        ("A", "gt_sets/val.txt", "val.txt: no such file"),
        ("O", "splits.mat", "splits.mat: no such file"),
        ("pascal", "ImageSets/Context/val.txt", "val.txt: no such file"),
        ("folder", "val.txt", "val.txt: no such file"),
    ],
)
def test_a_split_that_cannot_be_opened_is_a_problem_of_its_own(tmp_path, layout, file, says):
    root, output = tmp_path / "tree", tmp_path / "out"
    trees.write_tree(layout, root, 1, 1)
    (root / file).unlink()
    fails(layout, root, output)
    [problem] = report_of(output)["val"]["problems"]
    assert says in problem


# ---- where it reads and writes ----


def test_an_output_folder_inside_the_data_is_refused_and_nothing_is_made(good, tmp_path):
    root, _ = good("A")
    before = snapshot(root)
    link = tmp_path / "link"
    link.symlink_to(root)
    for output in (root, root / "cache", root / "a" / "b", link / "cache", root / "images" / ".." / "cache"):
        with pytest.raises(KdamValueError, match=r"lies in data_dir .*never written to; choose another"):
            prepare("A", root, output)
    with pytest.raises(KdamValueError, match="never written to"):
        prepare("A", link, root / "cache")
    assert snapshot(root) == before


def test_what_is_missing_from_the_command_line_is_named(good, tmp_path):
    root, _ = good("A")
    with pytest.raises(KdamValueError, match="give --output_dir"):
        prepare("A", root)
    with pytest.raises(KdamValueError, match=r"give --output_dir: .* what an archive holds"):
        prepare("A", tmp_path / "set.tgz", None, "--check_only")
    for arguments in (
        ["--dataset", "nyud_v2", "--output_dir", str(tmp_path)],
        ["--data_dir", str(root), "--output_dir", str(tmp_path)],  # the default dataset is rendered
        ["--dataset", "synthetic_rooms", "--data_dir", str(root), "--output_dir", str(tmp_path)],
        ["--dataset", "nyud_v2", "--data_dir", str(root), "--output_dir", str(tmp_path), "--cache_dir", "x"],
    ):
        with pytest.raises(
            KdamValueError, match=r"expected --dataset, one of nyud_v2, pascal_context, folder, --data_dir"
        ):
            prepare_data.main(arguments)
    with pytest.raises(
        KdamValueError, match=r"unknown key 'check-olny'|unknown key 'check_olny'; did you mean 'check_only'"
    ):
        prepare("A", root, tmp_path, "--check-olny")
    with pytest.raises(KdamValueError, match=r"is no folder; give the root of the dataset"):
        prepare("A", tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(KdamValueError, match="sha256 is that of an archive"):
        prepare("A", root, tmp_path / "out", "--sha256", "ab" * 32)


@pytest.mark.fault(25)
def test_an_archive_of_another_checksum_is_refused_and_nothing_is_unpacked(good, tmp_path):
    archive = trees.make_archive(good("A")[0], tmp_path / "set.tgz")
    with pytest.raises(DataIntegrityError, match=r"set\.tgz: SHA-256 is .*expected abab"):
        prepare("A", archive, tmp_path / "out", "--sha256", "ab" * 32)
    assert not (tmp_path / "out" / "unpacked").exists()


@pytest.mark.parametrize("suffix", [".tgz", ".tar.gz", ".zip"])
@pytest.mark.parametrize("layout", ["A", "pascal"])
def test_an_archive_stands_in_for_the_folder(good, tmp_path, layout, suffix, reads):
    root, _ = good(layout)
    place = tmp_path / "downloads"
    place.mkdir()
    archive = trees.make_archive(root, place / f"set{suffix}")
    before, output = snapshot(place), tmp_path / "out"
    prepare(layout, archive, output)
    assert snapshot(place) == before  # nothing beside the archive
    assert visible(output) == sorted([f"{name_of(layout)}-train", f"{name_of(layout)}-val", "report.json", "unpacked"])
    assert visible(output / "unpacked") == ["set"]
    assert f" in {output / 'unpacked' / 'set' / layout}" in report_of(output)["val"]["origin"]
    for split in ("train", "val"):
        check_packed(open_dataset(name_of(layout), split, output), open_dataset(name_of(layout), split, root))
    reads.clear()
    prepare(layout, archive, output)  # neither unpacked nor read again
    assert reads == []


# ---- options ----


def test_data_options_reach_the_dataset(good, tmp_path):
    root, truth = good("O")
    camera = "intrinsics=60,60,30,22"
    prepare("O", root, tmp_path, "--layout", "official", "--data_options", "crop=5:25:10:50", camera)
    data = open_dataset("nyud_v2", "val", tmp_path)
    for k, scene in enumerate(truth["val"]):
        np.testing.assert_array_equal(data[k]["image"], scene.image[5:25, 10:50])
    assert report_of(tmp_path)["val"]["sizes"] == {"20x40": 3}
    check_packed(data, open_dataset("nyud_v2", "val", root, crop="5:25:10:50", intrinsics="60,60,30,22"))


def test_a_prepared_folder_is_not_read_with_other_options(good, tmp_path):
    prepare("O", good("O")[0], tmp_path, "--data_options", "crop=5:25:10:50")
    assert open_dataset("nyud_v2", "val", tmp_path, crop="5:25:10:50", intrinsics="kinect")[0]["image"].shape == (
        20,
        40,
        3,
    )
    for options in ({"crop": "none"}, {"intrinsics": "1,1,1,1"}, {"layout": "mtan"}):
        [(key, value)] = options.items()
        with pytest.raises(
            KdamValueError, match=rf"was prepared with {key}=.*, asked for is {value}\. Leave the option out"
        ):
            open_dataset("nyud_v2", "val", tmp_path, **options)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("crop", r"data_options 'crop'; expected NAME=VALUE, such as crop=none"),
        ("=none", r"data_options '=none'; expected NAME=VALUE"),
        ("layout=atrc", r"data_options 'layout=atrc'; expected NAME=VALUE"),
        ("strict=False", r"data_options 'strict=False'; expected NAME=VALUE"),
        ("corp=none", r"nyud_v2: unknown option corp; expected layout, strict, crop, intrinsics"),
        ("crop=1:2", r"crop '1:2' of a picture of 45x61 pixels; expected auto, none or top:bottom:left:right"),
        ("intrinsics=1,2", r"intrinsics '1,2'; expected kinect or fx,fy,cx,cy"),
    ],
)
def test_a_data_option_that_does_not_parse_is_named(good, tmp_path, option, says):
    with pytest.raises(KdamValueError, match=says):
        prepare("O", good("O")[0], tmp_path, "--data_options", option)
    assert visible(tmp_path) == []


def test_an_argument_at_fault_is_one_message_and_exit_code_2(good, monkeypatch, capsys):
    """As from the shell; 0 is good, 1 a fault in the data."""
    arguments = ["--dataset", "nyud_v2", "--data_dir", str(good("C")[0]), "--layout", "mtam", "--check_only"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as caught:
        run_command(prepare_data.main)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("KdamValueError: nyud_v2: unknown layout 'mtam'; expected one of astmt")
    assert printed.count("\n") == 1
