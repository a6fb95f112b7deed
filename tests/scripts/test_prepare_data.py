"""scripts/prepare_data.py on miniature trees: its report, what it prepares, faults; data stays untouched."""

import json

import numpy as np
import pytest
import trees
from command_kit import load
from datasets import Dataset
from trees import name_of

from dataset_loaders import PreparedDataset, open_dataset
from dataset_loaders.builders import features_of, row_of
from dataset_loaders.files import FileDataset
from kdam_hf.errors import DataIntegrityError, KdamValueError

prepare_data = load("prepare_data.py")


def prepare(layout, root, output=None, *arguments):
    where = [] if output is None else ["--output_dir", str(output)]
    prepare_data.main(["--dataset", name_of(layout), "--data_dir", str(root), *where, "--num_proc", "1", *arguments])


def fails(*arguments):
    """The script ends with exit code 1: something is wrong with the data."""
    with pytest.raises(SystemExit) as caught:
        prepare(*arguments)
    assert caught.value.code == 1


def report_of(output):
    report = json.loads((output / "report.json").read_text())
    return {content["split"]: content for content in report["splits"]}


def snapshot(root):
    """Names, times and contents below a folder."""
    paths = [root, *sorted(root.rglob("*"))]
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None) for path in paths}


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def check_prepared(prepared, source):
    """Its labels are those of the source by the contract of data sets."""
    assert isinstance(prepared, PreparedDataset)
    assert list(prepared.ids) == list(source.ids)
    assert [task.spec() for task in prepared.tasks] == [task.spec() for task in source.tasks]


@pytest.fixture
def reads(monkeypatch):
    """(split, index) of every sample read from files in this process."""
    read, original = [], FileDataset.__getitem__

    def counted(self, index):
        read.append((self.split, index))
        return original(self, index)

    monkeypatch.setattr(FileDataset, "__getitem__", counted)
    return read


@pytest.mark.parametrize("layout", ["A", "E", "folder"])
def test_good_data_is_reported_prepared_and_left_as_it_is(tree, tmp_path, layout, capsys, monkeypatch):
    root, _ = tree(layout)
    before, name = snapshot(root), "rooms" if layout == "folder" else name_of(layout)
    prepare(layout, root, None, "--check_only")  # a report on the screen alone
    assert "Train with" not in capsys.readouterr().out
    prepare(layout, root, tmp_path)
    assert snapshot(root) == before
    assert visible(tmp_path) == sorted(["report.json", f"{name}-train", f"{name}-val"])
    report, printed = report_of(tmp_path), capsys.readouterr().out
    for split, count in (("train", 4), ("val", 3)):
        assert (report[split]["usable"], report[split]["problems"]) == (count, [])
        assert f"{name} {split}: {count} of {count} images usable" in printed
        assert report[split]["origin"] in printed
        check_prepared(open_dataset(name_of(layout), split, tmp_path), open_dataset(name_of(layout), split, root))
    assert f"Train with: --dataset {name_of(layout)} --data_dir {tmp_path}" in printed
    written = snapshot(tmp_path / f"{name}-val")
    monkeypatch.chdir(root.parent)
    other = root if layout == "E" else f"./{root.name}/../{root.name}"  # `datasets` knows its files by their paths
    prepare(layout, other, tmp_path)  # taken as it is, under any name
    assert snapshot(tmp_path / f"{name}-val") == written
    assert report_of(tmp_path) == report
    with pytest.raises(KdamValueError, match="is prepared already"):
        prepare(layout, tmp_path, tmp_path.with_name("again"))


def test_faults_are_reported_row_by_row_and_only_what_was_corrected_is_read_again(tmp_path, capsys, reads):
    root, output = tmp_path / "NYUD_MT", tmp_path / "out"
    truth = trees.write_tree("B", root, 2, 4)
    ids = [scene.id for scene in truth["val"]]
    spoilt, stray = root / f"depth/{ids[2]}.npy", root / "images/8888.jpg"
    content = spoilt.read_bytes()
    trees.set_nan(spoilt)
    trees.add_stray_file(root / f"images/{ids[1]}.jpg", "8888")
    before = snapshot(root)
    for arguments in (["--check_only"], []):
        fails("B", root, output, *arguments)
        report, printed = report_of(output), capsys.readouterr().out
        for split, problems in report.items():
            assert f"{stray.parent}: 1 files belong to no split, first 8888.jpg" in problems["problems"][0]
            assert len(problems["problems"]) == {"train": 1, "val": 2}[split]
        assert f"{spoilt}: depth holds NaN" in report["val"]["problems"][1]
        assert (report["val"]["images"], report["val"]["usable"], report["train"]["usable"]) == (4, 3, 2)
        assert printed.count("PROBLEM") == 3
        assert f"3 problems, all in {output / 'report.json'}" in printed
        assert "Train with" not in printed
        assert visible(output) == ["report.json"]
    assert snapshot(root) == before
    stray.unlink()
    fails("B", root, output)
    assert visible(output) == ["nyud_v2-train", "report.json"]  # the good split is there
    fails("B", root, output, "--splits", "val", "gone")  # a split that cannot be opened is a problem of its own
    assert "gt_sets/gone.txt" in report_of(output)["gone"]["problems"][0]
    spoilt.write_bytes(content)
    reads.clear()
    prepare("B", root, output, "--splits", "val")
    assert reads == [("val", 2)]
    check_prepared(open_dataset("nyud_v2", "val", output), open_dataset("nyud_v2", "val", root))


def test_an_output_folder_inside_the_data_is_refused_and_nothing_is_made(tree, tmp_path):
    root, _ = tree("A")
    before, link = snapshot(root), tmp_path / "link"
    link.symlink_to(root)
    for source, output in ((root, root), (root, link / "out"), (link, root / "a" / "b")):
        with pytest.raises(KdamValueError, match="output_dir"):
            prepare("A", source, output)
    assert snapshot(root) == before


ROOT, OUTPUT = "ROOT", ["--output_dir", "OUT"]
WRONG = [
    (["--dataset", "nyud_v2", "--data_dir", ROOT], "give --output_dir"),
    (["--dataset", "nyud_v2", "--data_dir", "set.tgz", "--check_only"], "give --output_dir"),
    (OUTPUT, "nyud_v2, pascal_context, folder"),  # the default dataset is rendered
    (["--dataset", "nyud_v2", "--data_dir", ROOT, "--cache_dir", "x", *OUTPUT], "nyud_v2, pascal_context, folder"),
    (["--dataset", "nyud_v2", "--data_dir", ROOT, "--sha256", "ab" * 32, *OUTPUT], "sha256 is that of an archive"),
    (["--dataset", "nyud_v2", "--data_dir", ROOT, "--layout", "mtam", "--check_only"], "mtam"),
    (["--dataset", "folder", "--data_dir", ROOT, "--columns", "semseg=x", "--check_only"], "unknown option columns"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_an_argument_at_fault_is_named(tree, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdamValueError, match=said):
        prepare_data.main([str(tree("C")[0]) if word == ROOT else word for word in arguments])


@pytest.mark.fault(25)
def test_a_broken_archive_or_one_of_another_checksum_is_refused_and_nothing_is_unpacked(tree, tmp_path):
    archive = trees.make_archive(tree("A")[0], tmp_path / "set.tgz")
    with pytest.raises(DataIntegrityError, match=r"set\.tgz: SHA-256"):
        prepare("A", archive, tmp_path / "out", "--sha256", "ab" * 32)
    trees.truncate(archive)
    with pytest.raises(DataIntegrityError, match=r"set\.tgz: damaged, cut short"):
        prepare("A", archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_an_archive_stands_in_for_the_folder(tree, tmp_path, reads):
    root, _ = tree("A")
    (tmp_path / "downloads").mkdir()
    archive, output = trees.make_archive(root, tmp_path / "downloads/set.tgz"), tmp_path / "out"
    prepare("A", archive, output)
    assert visible(tmp_path / "downloads") == ["set.tgz"]  # nothing beside the archive
    assert visible(output) == ["nyud_v2-train", "nyud_v2-val", "report.json", "unpacked"]
    check_prepared(open_dataset("nyud_v2", "train", output), open_dataset("nyud_v2", "train", root))
    reads.clear()
    prepare("A", archive, output)  # neither unpacked nor read again
    assert reads == []


def test_a_data_set_of_the_hub_is_prepared_as_a_folder_is_its_columns_and_shares_included(tree, tmp_path, capsys):
    source = open_dataset("folder", "train", tree("folder")[0], tasks=["semseg", "depth"])
    names = {"image": "photo", "semseg": "gt", "semseg_classes": "gt_classes", "depth": "depth_map"}
    rows = [row_of(source, k) for k in range(3)]
    jpeg = {"bytes": source.photo(0).read_bytes(), "path": None}
    for folder, second in (("rows", rows[1]), ("bad", rows[1] | {"semseg": jpeg})):
        table = Dataset.from_list([rows[0], second, rows[2]], features_of(source.tasks)).rename_columns(names)
        table.to_parquet(tmp_path / folder / "train-00000-of-00001.parquet")
    shares, columns = ["train[:2]", "train[2:]"], ["semseg=gt", "id=id"]
    arguments = ["--dataset", "hub", "--num_proc", "1", "--columns", *columns, "--splits", *shares]
    out = ["--output_dir", str(tmp_path / "out")]
    for _ in range(2):  # written, and taken as it is
        prepare_data.main([*arguments, "--data_dir", str(tmp_path / "rows"), *out])
    assert visible(tmp_path / "out") == ["report.json", *(f"rows-{share}" for share in sorted(shares))]
    assert "--train_split 'train[:2]' --eval_split 'train[2:]'" in capsys.readouterr().out
    for share in shares:
        read = open_dataset("hub", share, tmp_path / "rows", columns=columns)
        check_prepared(open_dataset("hub", share, tmp_path / "out"), read)
    with pytest.raises(SystemExit):
        prepare_data.main([*arguments, "--data_dir", str(tmp_path / "bad"), *out])
    report = report_of(tmp_path / "out")["train[:2]"]
    assert [source.ids[1] in problem for problem in report["problems"]] == [True]
    assert report["usable"] == 1


def test_options_of_the_data_are_used_kept_and_not_read_with_others(tree, tmp_path):
    root, truth = tree("O")
    options = ["crop=5:25:10:50", "intrinsics=60,60,30,22"]
    tasks = ["--splits", "val", "--tasks", "depth", "normals"]
    prepare("O", root, tmp_path, "--layout", "official", *tasks, "--data_options", *options)
    assert visible(tmp_path) == ["nyud_v2-val", "report.json"]
    assert list(report_of(tmp_path)["val"]["tasks"]) == tasks[-2:]
    data = open_dataset("nyud_v2", "val", tmp_path, crop="5:25:10:50")
    assert [task.name for task in data.tasks] == tasks[-2:]
    np.testing.assert_array_equal(data[0]["image"], truth["val"][0].image[5:25, 10:50])
    for key, value in (("crop", "none"), ("intrinsics", "1,1,1,1"), ("layout", "mtan")):
        with pytest.raises(KdamValueError, match=rf"{key}=.*asked for is {value}"):
            open_dataset("nyud_v2", "val", tmp_path, **{key: value})
    with pytest.raises(KdamValueError, match=r"options\.crop"):
        prepare("O", root, tmp_path, "--layout", "official", *tasks, "--data_options", "crop=none", options[1])


@pytest.mark.parametrize("option", ["crop", "=none", "strict=False", "corp=none", "crop=1:2"])
def test_a_data_option_that_does_not_parse_is_named(tree, tmp_path, option):
    with pytest.raises(KdamValueError) as caught:
        prepare("O", tree("O")[0], tmp_path, "--data_options", option)
    assert (option.partition("=")[0] or option) in str(caught.value)
    assert visible(tmp_path) == []
