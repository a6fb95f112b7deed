"""The command evaluate.py, held against numbers worked out by hand, and against itself by its other way in."""

import json

import numpy as np
import pytest
from command_kit import load
from conftest_kit import Kit
from trees import save

from kdam_hf.errors import DataIntegrityError, KdamValueError
from kdam_hf.tasks import make_task

evaluate = load("evaluate.py")
SIDE = 160  # its diagonal times 0.0075 is 1.7 pixels
HALF = SIDE // 2


def full(value, dtype=np.uint8):
    return np.full((SIDE, SIDE), value, dtype)


def tilted(degrees):
    """Normals that lean to the right."""
    angle = np.radians(degrees)
    return np.broadcast_to(np.array([np.sin(angle), 0, np.cos(angle)], np.float32), (SIDE, SIDE, 3))


def line(column, value):
    edges = full(0)
    edges[20:140, column] = value
    return edges


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two images `a` and `b` and what is true of them; every task has a different label for a reason given below."""
    root = tmp_path_factory.mktemp("data")
    for name in "ab":
        save(root / "images" / f"{name}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        semseg, saliency, depth = full(0), full(0), full(2.0, np.float32)
        semseg[:, HALF:] = 1
        saliency[:HALF] = 1
        depth[:HALF] = 2 * (name == "a")
        for task, array in {"semseg": semseg, "saliency": saliency, "edge": line(HALF, 1)}.items():
            save(root / task / f"{name}.png", array)
        save(root / "depth" / f"{name}.npy", depth)
        save(root / "normals" / f"{name}.npy", tilted(0))
    tasks = {"semseg": {"class_names": ["left", "right"]}, "saliency": {}, "depth": {}, "normals": {}, "edge": {}}
    (root / "dataset.json").write_text(json.dumps({"name": "halves", "tasks": tasks}))
    (root / "train.txt").write_text("a\n")
    (root / "val.txt").write_text("a\nb\n")
    return root


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """Maps that another system might have left: 8 and 16 bits, floats in half and double precision."""
    root = tmp_path_factory.mktemp("maps")
    right, salient = full(0, np.int64), full(0)
    right[:, HALF:] = 1
    salient[:HALF] = 255
    maps = {
        "semseg": {"a.png": full(0), "b.npy": right},
        "saliency": {"a.png": salient, "b.npy": full(0, np.float32)},
        "depth": {"a.npy": full(2.3, np.float64), "b.png": full(1500, np.uint16)},
        "normals": {"a.npy": tilted(10), "b.npy": 3 * tilted(40)},
        "edge": {"a.png": line(HALF + 1, 255), "b.npy": line(HALF + 3, 1).astype(np.float16)},
    }
    for task, files in maps.items():
        for name, array in files.items():
            save(root / task / name, array)
    return root


# worked out by hand
EXPECTED = {
    # left: all of it found, a half of `a` too much; right: half of it found
    "semseg/miou": 100 * (2 / 3 + 1 / 2) / 2,
    "semseg/pixel_accuracy": 75,
    # precision 1, recall 1/2, beta^2 = 0.3
    "saliency/maxf": 100 * 1.3 * 0.5 / (0.3 + 0.5),
    "saliency/mae": 0.25,
    # `b` has a depth on its lower half only
    "depth/rmse": ((2 * 0.3**2 + 0.5**2) / 3) ** 0.5,
    "depth/abs_rel": (2 * 0.15 + 0.25) / 3,
    "depth/delta1": 100 * 2 / 3,
    "normals/mean_angle": 25,
    "normals/within_11.25": 50,
    # one line is 1 pixel off, within the tolerance, the other 3, beyond it
    "edge/odsf": 50,
    "edge/ods_precision": 50,
    "edge/ods_recall": 50,
    "edge/maxf": 0,
}


def run(data, tmp_path, *arguments, output="r.json"):
    own = ["--dataset", "folder", "--data_dir", data, "--num_proc", "1", "--output", tmp_path / output]
    evaluate.main([str(argument) for argument in (*own, *arguments)])
    return json.loads((tmp_path / output).read_text())


def test_maps_on_disk_get_the_numbers_worked_out_by_hand(data, predictions, tmp_path):
    results = run(data, tmp_path, "--predictions", predictions, "--boundaries", "bsds")
    assert {key: results[key] for key in EXPECTED} == pytest.approx(EXPECTED, abs=1e-4)
    meta = results["meta"]
    assert meta["predictions"] == str(predictions)
    assert (meta["images"], meta["protocol"], meta["boundaries"], meta["ids"]) == (2, "ours", "bsds", None)
    table = (tmp_path / "r.md").read_text()
    for task, value in {"semseg": "58.333", "depth": "0.379", "normals": "25.000", "edge": "50.000"}.items():
        assert any(line.startswith(f"| {task} | **") and f"**{value}**" in line for line in table.splitlines())


def test_only_the_listed_ids_count(data, predictions, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("b\n")
    arguments = ("--predictions", predictions, "--ids", ids, "--tasks", "semseg", "normals")
    results = run(data, tmp_path, *arguments)
    assert (results["semseg/miou"], results["normals/mean_angle"]) == pytest.approx((100, 40), abs=1e-4)
    assert (results["meta"]["images"], results["meta"]["ids"]) == (1, str(ids))
    assert not any(key.startswith(("depth", "edge")) for key in results)
    ids.write_text("b\nc\n")
    with pytest.raises(KdamValueError, match="1 of 2 ids are not in the split, first c"):
        run(data, tmp_path, *arguments)


def test_a_protocol_changes_the_numbers_it_names_and_is_recorded(data, predictions, tmp_path):
    arguments = ("--predictions", predictions, "--protocol", "mtl_pytorch", "--boundaries", "none")
    results = run(data, tmp_path, *arguments)
    # per image, beta^2 = 1: mean precision 1/2, mean recall 1/2
    assert results["saliency/maxf"] == pytest.approx(50)
    assert results["semseg/miou"] == pytest.approx(EXPECTED["semseg/miou"])
    assert results["meta"]["protocol"] == "mtl_pytorch"
    assert results["edge/maxf"] == 0
    assert "edge/odsf" not in results
    assert "arXiv:1904.08918" in (tmp_path / "r.md").read_text()


def test_gain_over_single_task_results_stands_in_results_and_table(data, predictions, tmp_path):
    arguments = ("--predictions", predictions, "--boundaries", "bsds", "--tasks")
    files = [tmp_path / "semseg.json", tmp_path / "depth.json"]
    for file in files:
        run(data, tmp_path, *arguments, file.stem, output=file.name)
    single = json.loads(files[1].read_text())
    single["depth/rmse"] *= 2
    files[1].write_text(json.dumps(single))
    results = run(data, tmp_path, *arguments, "semseg", "depth", "--single_task", *files)
    assert results["delta_m"] == pytest.approx(25)
    assert results["meta"]["single_task"] == {"semseg": str(files[0]), "depth": str(files[1])}
    assert "| all | delta_m | 25.000 |" in (tmp_path / "r.md").read_text()
    single["meta"]["ids_sha256"] = "of as many other images"
    files[1].write_text(json.dumps(single))
    with pytest.raises(KdamValueError, match="ids_sha256"):
        run(data, tmp_path, *arguments, "semseg", "depth", "--single_task", *files)


def test_a_folder_in_the_place_of_the_results_is_named_before_anything_is_scored_and_kept(
    data, predictions, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, "open_split", lambda *_: pytest.fail("opened"))
    (tmp_path / "r.json").mkdir()
    (tmp_path / "r.json" / "precious").touch()
    with pytest.raises(KdamValueError, match="folder"):
        run(data, tmp_path, "--predictions", predictions)
    assert (tmp_path / "r.json" / "precious").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tasks = [make_task("semseg", ["left", "right"]), *map(make_task, ("saliency", "depth", "normals", "edge"))]
    return Kit(tmp_path_factory.mktemp("model")).saved("student", tasks=tasks)


def test_a_model_saved_drawn_and_scored_again_from_disk(data, model, tmp_path):
    pytest.importorskip("matplotlib")
    maps, plots = tmp_path / "maps", tmp_path / "plots"
    first = run(data, tmp_path, "--model", model, "--save_predictions", maps, "--plots", plots)
    assert first["meta"]["kind"] == "KdamStudent"
    again = run(data, tmp_path, "--predictions", maps, "--num_workers", "1")
    keys = set(first) - {"meta"}
    assert set(again) - {"meta"} == keys
    for key in keys:
        if key.startswith(("semseg", "depth", "normals/mean")):  # the others have thresholds that rounding steps over
            assert again[key] == pytest.approx(first[key], abs=2e-3), key
    assert sorted(path.name for path in plots.iterdir()) == ["depth.png", "edge.png", "normals.png", "semseg.png"]
    depth = make_task("depth")
    evaluate.draw({"depth": depth.metric()}, {"depth/rmse": np.nan}, [depth], str(tmp_path / "none"), "no label")
    assert not (tmp_path / "none").exists()


def test_a_model_is_scored_on_the_tasks_that_it_has(data, tmp_path):
    found = run(data, tmp_path, "--model", Kit(tmp_path).saved("depth", tasks=[make_task("depth")]))
    assert {key.split("/")[0] for key in found} == {"depth", "meta"}


def test_cores_are_shared_with_a_model_on_the_cpu_alone(monkeypatch):
    threads = []
    monkeypatch.setattr(evaluate, "available_cores", lambda: 8)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    shared = [evaluate.share_cores(*asked) for asked in ((None, True), (3, True), (None, False), (1, True))]
    assert shared == [4, 3, 8, 1]
    assert threads == [4, 5]


def test_scoring_a_trained_model_again_keeps_what_is_known_of_its_training_and_claims_none_of_others(
    data, model, tmp_path
):
    output = tmp_path / "r.json"
    arguments = ("--model", model, "--tasks", "depth")
    own = run(data, tmp_path, *arguments)["meta"]
    assert not set(evaluate.OF_TRAINING) & set(own)
    training = {"steps": 9, "method": "cs", "recipe": {"seed": 1}}
    output.write_text(json.dumps({"meta": {**own, **training, "data": "rooms"}}))
    for _ in range(2):  # on other images it is still known what it learned from
        scored = run(data, tmp_path, *arguments)["meta"]
        assert {key: scored[key] for key in training} == training
        assert (scored["data"], scored["trained_on"]) == ("halves", "rooms")
    for text in (json.dumps({"meta": {**own, **training, "weights_sha256": "other"}}), "{", "[]", '{"meta": []}'):
        output.write_text(text)
        assert evaluate.facts_of_training(output, own["weights_sha256"]) == {}
        assert evaluate.facts_of_training(output, None) == {}


def test_a_mistake_on_the_command_line_is_named_and_writes_nothing(data, tmp_path):
    for arguments, given in {
        "": "model=None, predictions=None",
        "--model m --predictions p": "model=m, predictions=p",
        "--predictions p --save_predictions q": "save_predictions",
        "--predictions p --output r.md": "r.md",
        "--predictions p --protocol their": "'their'",
        "--predictions p --boundaries their": "'their'",
        "--predictions p --task_options egde.boundaries=none": "egde",
        "--predictions nowhere": "nowhere/semseg",
    }.items():
        with pytest.raises((KdamValueError, DataIntegrityError), match=given):
            run(data, tmp_path, *arguments.split())
        assert not list(tmp_path.iterdir())
