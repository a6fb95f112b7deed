"""The generated trees against the written description of the layouts, read with plain library calls only."""

import json
import tarfile
import zipfile

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import scipy.io
import trees
from PIL import Image

H, W = 45, 61
CHART_40 = np.arange(40).reshape(4, 10)  # the ids that stand on 2x2 pixels in the upper left corner
IDS = {"train": ["0003", "0004", "0005", "0006", "0007", "0008"], "val": ["0001", "0002", "0009"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Writes each layout once: `tree("A")` is (root, truth)."""
    written = {}

    def get(layout):
        if layout not in written:
            root = tmp_path_factory.mktemp(layout) / "tree"
            written[layout] = root, trees.write_tree(layout, root)
        return written[layout]

    return get


@pytest.fixture
def copy(tmp_path):
    """A tree of one scene per split, to be spoilt."""

    def get(layout, **sizes):
        root = tmp_path / layout
        trees.write_tree(layout, root, **{"train": 1, "val": 1, **sizes})
        return root

    return get


def pixels(path, mode, file_format):
    with Image.open(path) as image:
        assert (image.mode, image.format) == (mode, file_format), path
        return np.array(image)


def files(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def every(truth):
    return [scene for split in truth.values() for scene in split]


def angles(first, second):
    """Degrees between unit vectors where both are valid."""
    valid = first.any(-1) & second.any(-1)
    p, g = first[valid].astype(np.float64), second[valid].astype(np.float64)
    return np.degrees(2 * np.arctan2(np.linalg.norm(p - g, axis=-1), np.linalg.norm(p + g, axis=-1)))


# ---- NYUD-v2 ----


@pytest.mark.parametrize(
    ("layout", "suffixes"),
    [
        ("A", {"images": "jpg", "segmentation": "mat", "depth": "mat", "normals": "jpg", "edge": "png"}),
        ("B", {"images": "jpg", "segmentation": "png", "depth": "npy", "normals": "npy", "edge": "npy"}),
        ("C", {"images": "png", "segmentation": "png", "depth": "npy", "normals": "png", "edge": "png"}),
    ],
)
def test_nyud_trees_hold_exactly_the_files_of_their_layout(tree, layout, suffixes):
    root, truth = tree(layout)
    ids = [*IDS["train"], *IDS["val"]]
    lists = {"gt_sets/train.txt", "gt_sets/val.txt"}
    assert files(root) == lists | {f"{folder}/{i}.{suffix}" for folder, suffix in suffixes.items() for i in ids}
    for split, expected in IDS.items():
        assert (root / "gt_sets" / f"{split}.txt").read_text().splitlines() == expected
        assert [scene.id for scene in truth[split]] == expected


def test_a_is_mat_and_jpeg(tree):
    root, truth = tree("A")
    dtypes = set()
    for scene in every(truth):
        image = pixels(root / f"images/{scene.id}.jpg", "RGB", "JPEG")
        np.testing.assert_array_equal(image, scene.image)
        segmentation = scipy.io.loadmat(root / f"segmentation/{scene.id}.mat")["segmentation"]
        assert segmentation.shape == (H, W)
        dtypes.add(str(segmentation.dtype))
        np.testing.assert_array_equal(segmentation[:8:2, :20:2], CHART_40 + 1)
        assert (segmentation[:, -2:] == 0).all()
        assert segmentation.max() == 40
        depth = scipy.io.loadmat(root / f"depth/{scene.id}.mat")["depth"]
        assert (depth.shape, depth.dtype) == ((H, W), np.float32)
        assert (depth[-6:-2, 5:15] == 0).all()
        assert 0.3 < np.median(depth) < depth.max() < 12
        normals = pixels(root / f"normals/{scene.id}.jpg", "RGB", "JPEG") * 2.0 / 255 - 1
        length = np.linalg.norm(normals, axis=-1)
        assert (np.abs(length - 1) < 0.1).mean() > 0.85
        assert (length[-5:-3, 6:14] < 0.5).mean() > 0.8
        assert np.unique(pixels(root / f"edge/{scene.id}.png", "L", "PNG")).tolist() == [0, 255]
    assert dtypes == {"uint8", "float64"}


def test_b_is_png_and_npy(tree):
    root, truth = tree("B")
    for scene in every(truth):
        np.testing.assert_array_equal(pixels(root / f"images/{scene.id}.jpg", "RGB", "JPEG"), scene.image)
        segmentation = pixels(root / f"segmentation/{scene.id}.png", "L", "PNG")
        np.testing.assert_array_equal(segmentation[:8:2, :20:2], CHART_40 + 1)
        depth, normals, edge = (np.load(root / task / f"{scene.id}.npy") for task in ("depth", "normals", "edge"))
        assert (depth.shape, depth.dtype) == ((H, W), np.float32)
        assert (normals.shape, normals.dtype) == ((H, W, 3), np.float32)
        length = np.linalg.norm(normals, axis=-1)
        assert set(np.unique(length.round(5)).tolist()) == {0, 1}
        assert (length[depth == 0] == 0).all()
        assert (length[-6:-2, 20:26] == 0).all()
        assert edge.shape == (H, W)
        assert np.unique(edge).tolist() == [0, 1]


def test_c_is_png_with_npy_depth(tree):
    root, truth = tree("C")
    for scene in every(truth):
        np.testing.assert_array_equal(pixels(root / f"images/{scene.id}.png", "RGB", "PNG"), scene.image)
        segmentation = pixels(root / f"segmentation/{scene.id}.png", "L", "PNG")
        np.testing.assert_array_equal(segmentation[:8:2, :20:2], CHART_40 + 1)
        depth = np.load(root / f"depth/{scene.id}.npy")
        assert (depth.shape, depth.dtype) == ((H, W), np.float32)
        codes = pixels(root / f"normals/{scene.id}.png", "RGB", "PNG")
        assert set(np.unique(codes[-6:-2, 20:26]).tolist()) == {127, 128}
        length = np.linalg.norm(codes * 2.0 / 255 - 1, axis=-1)
        assert set(np.unique(length.round(1)).tolist()) == {0, 1}
        np.testing.assert_array_equal(length < 0.5, (scene.labels["normals"] == 0).all(-1))
        assert np.unique(pixels(root / f"edge/{scene.id}.png", "L", "PNG")).tolist() == [0, 255]


def test_d_is_npy_with_channels_last_and_13_classes(tree):
    root, truth = tree("D")
    assert files(root) == {
        f"{split}/{kind}/{k}.npy"
        for split, count in (("train", 6), ("val", 3))
        for kind in ("image", "label", "depth", "normal")
        for k in range(count)
    }
    for split in truth:
        for k, scene in enumerate(truth[split]):
            image, label, depth, normal = (
                np.load(root / split / kind / f"{k}.npy") for kind in ("image", "label", "depth", "normal")
            )
            assert [a.shape for a in (image, label, depth, normal)] == [(36, 48, 3), (36, 48), (36, 48, 1), (36, 48, 3)]
            assert {a.dtype for a in (image, label, depth, normal)} == {np.dtype(np.float32)}
            assert image.min() >= 0
            assert 0.5 < image.max() <= 1
            assert np.unique(label).tolist() == list(range(-1, 13))
            # wall floor cabinet bed chair sofa table door window bookshelf: 11 4 5 0 3 8 9 11 12 5
            assert label[0, :20:2].tolist() == [11, 4, 5, 0, 3, 8, 9, 11, 12, 5]
            assert depth.min() == 0
            assert set(np.unique(np.linalg.norm(normal, axis=-1).round(5)).tolist()) == {0, 1}
            np.testing.assert_array_equal(np.round(image * 255), scene.image)
            np.testing.assert_array_equal(np.where(label < 0, 255, label), scene.labels["semseg"])
            assert set(scene.labels) == {"semseg", "depth", "normals"}


def test_e_is_parquet_with_channels_first(tree):
    datasets = pytest.importorskip("datasets")
    root, truth = tree("E")
    assert files(root) == {
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/val-00000-of-00001.parquet",
    }
    shards = {s: [pyarrow.parquet.read_table(p) for p in sorted(root.glob(f"data/{s}-*"))] for s in truth}
    assert [len(table) for table in shards["train"]] == [3, 3]
    features = datasets.Features.from_arrow_schema(shards["train"][0].schema)
    assert features == {
        "image": datasets.Array3D((3, 36, 48), "float32"),
        "segmentation": datasets.Array2D((36, 48), "int64"),
        "depth": datasets.Array3D((1, 36, 48), "float32"),
        "normal": datasets.Array3D((3, 36, 48), "float32"),
        "noise": datasets.Array3D((1, 36, 48), "float32"),
    }
    mtan = tree("D")[0]
    for split, tables in shards.items():
        rows = [row for table in tables for row in table.to_pylist()]
        assert len(rows) == len(truth[split])
        for k, row in enumerate(rows):
            of_mtan = {
                kind: np.load(mtan / split / kind / f"{k}.npy") for kind in ("image", "label", "depth", "normal")
            }
            np.testing.assert_allclose(np.moveaxis(row["image"], 0, -1), of_mtan["image"])
            np.testing.assert_array_equal(row["segmentation"], of_mtan["label"])
            np.testing.assert_allclose(np.moveaxis(row["depth"], 0, -1), of_mtan["depth"])
            np.testing.assert_allclose(np.moveaxis(row["normal"], 0, -1), of_mtan["normal"])


def test_o_is_hdf5_with_reversed_axes(tree):
    root, truth = tree("O")
    assert files(root) == {"nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"}
    labeled = root / "nyu_depth_v2_labeled.mat"
    with pytest.raises(NotImplementedError, match=r"HDF|v7\.3"):
        scipy.io.loadmat(labeled)
    splits = scipy.io.loadmat(root / "splits.mat")
    assert splits["trainNdxs"].tolist() == [[3], [4], [5], [6], [7], [8]]
    assert splits["testNdxs"].tolist() == [[1], [2], [9]]
    mapping = scipy.io.loadmat(root / "classMapping40.mat")["mapClass"]
    assert mapping.shape == (1, 894)
    assert np.unique(mapping).tolist() == list(range(1, 41))
    with h5py.File(labeled) as file:
        shapes = {
            name: (file[name].shape, str(file[name].dtype)) for name in ("images", "depths", "labels", "instances")
        }
        assert shapes == {
            "images": ((9, 3, W, H), "uint8"),
            "depths": ((9, W, H), "float32"),
            "labels": ((9, W, H), "uint16"),
            "instances": ((9, W, H), "uint8"),
        }
        for scene in every(truth):
            k = int(scene.id) - 1
            np.testing.assert_array_equal(file["images"][k].transpose(2, 1, 0), scene.image)
            np.testing.assert_array_equal(file["depths"][k].T, scene.labels["depth"])
            labels = file["labels"][k].T
            assert 255 < labels.max() <= 894
            assert ((labels == 0) == (file["instances"][k].T == 0)).all()
            classes = np.where(labels == 0, 255, mapping[0][labels.astype(int) - 1] - 1)
            np.testing.assert_array_equal(classes, scene.labels["semseg"])
            np.testing.assert_array_equal(classes[:8:2, :20:2], CHART_40)


def test_one_scene_is_the_same_in_a_b_c_and_o(tree):
    source = every(trees.nyud_scenes())
    precision = {"A": (6, 4), "B": (6, 1e-3), "C": (0, 0.6), "O": (0, 1e-3)}  # mean grey levels, median degrees
    for layout, (grey, degrees) in precision.items():
        for scene, exact in zip(every(tree(layout)[1]), source, strict=True):
            assert np.abs(scene.image.astype(int) - exact.image).mean() <= grey, layout
            assert np.median(angles(scene.labels["normals"], exact.labels["normals"])) <= degrees, layout
            for task in ("semseg", "depth", "edge"):
                np.testing.assert_array_equal(scene.labels[task], exact.labels[task])


def test_normals_are_those_of_the_depth_through_the_stated_camera():
    """So that normals derived from the depth of layout O can be held against the truth."""
    scene = trees.nyud_scenes(1, 0, 120, 160)["train"][0]
    fx, fy, cx, cy = trees.intrinsics(120, 160)
    depth = scene.labels["depth"].astype(np.float64)
    rows, columns = np.indices(depth.shape)
    points = np.stack([(columns - cx) / fx * depth, (cy - rows) / fy * depth, -depth], -1)  # x right, y up, z backwards
    right, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(down, right)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-9)
    assert np.median(angles(normals, scene.labels["normals"])) < 1


def test_ids_of_1449_frames_split_as_in_the_original():
    ids = trees.nyud_ids(795, 654)
    assert ids["train"][:6] == ["0003", "0004", "0005", "0006", "0007", "0008"]
    assert ids["val"][:6] == ["0001", "0002", "0009", "0014", "0015", "0016"]
    assert sorted(ids["train"] + ids["val"]) == [f"{k:04d}" for k in range(1, 1450)]


# ---- PASCAL-Context ----


def test_pascal_has_the_files_of_its_layout(tree):
    root, truth = tree("pascal")
    expected = {f"ImageSets/{kind}/{split}.txt" for kind in ("Context", "Parts") for split in ("train", "val")}
    for split in truth:
        for k, scene in enumerate(truth[split]):
            expected |= {f"JPEGImages/{scene.id}.jpg", f"human_parts/{scene.id}.mat"}
            expected |= {f"normals_distill/{scene.id}.png", f"sal_distill/{scene.id}.png"}
            expected |= {f"pascal-context/trainval/{scene.id}.mat"}
            folders = {0: ["VOC12"], 1: ["VOC12", "pascal-context"], 2: ["pascal-context"]}[k % 3]
            expected |= {f"semseg/{folder}/{scene.id}.png" for folder in folders}
        listed = (root / f"ImageSets/Context/{split}.txt").read_text().split()
        assert listed == [scene.id for scene in truth[split]]
        assert list(json.loads((root / f"ImageSets/Parts/{split}.txt").read_text())) == listed
    assert files(root) == expected
    assert files(tree("pascal_edge")[0]) == expected | {f"edge/{scene.id}.png" for scene in every(truth)}
    assert truth["train"][0].id == "2008_000002"
    sizes = [scene.image.shape[:2] for scene in truth["train"]]
    assert len(set(sizes)) == 6
    assert {(h % 2, w % 2) for h, w in sizes} == {(0, 0), (0, 1), (1, 1)}


def test_pascal_maps_open_as_described(tree):
    root, truth = tree("pascal")
    for scene in every(truth):
        size = scene.image.shape[:2]
        np.testing.assert_array_equal(pixels(root / f"JPEGImages/{scene.id}.jpg", "RGB", "JPEG"), scene.image)
        voc = root / f"semseg/VOC12/{scene.id}.png"
        if voc.exists():
            with Image.open(voc) as image:
                assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            semseg = pixels(voc, "P", "PNG")
            assert 255 in semseg
        else:
            semseg = pixels(root / f"semseg/pascal-context/{scene.id}.png", "L", "PNG")
            assert 255 not in semseg
        assert semseg.shape == size
        assert semseg[2:6:2, 0:14:2].tolist() == [list(range(7, 14)), list(range(14, 21))]
        np.testing.assert_array_equal(semseg, scene.labels["semseg"])
        label_map = scipy.io.loadmat(root / f"pascal-context/trainval/{scene.id}.mat")["LabelMap"]
        assert (label_map.shape, label_map.dtype) == (size, np.uint16)
        assert (label_map.min(), label_map.max()) == (1, 459)
        soft = pixels(root / f"sal_distill/{scene.id}.png", "L", "PNG")
        assert soft[0, :4].tolist() == [0, 127, 128, 255]
        np.testing.assert_array_equal(scene.labels["saliency"], soft / 255 > 0.5)
        vectors = pixels(root / f"normals_distill/{scene.id}.png", "RGB", "PNG") * 2.0 / 255 - 1
        assert vectors.shape == (*size, 3)
        # horse 207 and train 416 are no classes of NYU, dog 113 is one, tvmonitor 427 counts as one
        valid = scene.labels["normals"].any(-1)
        assert not valid[np.isin(label_map, [1, 2, 207, 360, 416, 459])].any()
        within = np.isin(label_map, [113, 427, 440, 158]) & (np.linalg.norm(vectors, axis=-1) > 0.5)
        assert within.any()
        np.testing.assert_allclose(scene.labels["normals"][within], vectors[within], atol=0.02)


def test_pascal_normals_follow_the_given_classes(tmp_path):
    truth = trees.write_pascal(tmp_path, trees.pascal_scenes(1, 1), valid_ids={158})
    for scene in every(truth):
        np.testing.assert_array_equal(
            scene.labels["normals"].any(-1), (scene.raw["LabelMap"] == 158) & scene.raw["normals"].any(-1)
        )


def test_pascal_edges_are_the_thinned_laplacian_or_the_file(tree):
    truth, (root, with_files) = tree("pascal")[1], tree("pascal_edge")
    for scene, other in zip(every(truth), every(with_files), strict=True):
        label_map, edge = scene.raw["LabelMap"].astype(int), scene.labels["edge"]
        constant = np.ones(label_map.shape, bool)  # 3x3 neighbourhoods of one class hold no edge
        for down, right in np.ndindex(3, 3):
            constant &= np.pad(label_map, 1, mode="edge")[down:, right:][: edge.shape[0], : edge.shape[1]] == label_map
        assert edge.any()
        assert not edge[constant].any()
        codes = pixels(root / f"edge/{other.id}.png", "L", "PNG")
        np.testing.assert_array_equal(other.labels["edge"] * 255, codes)
        assert (other.labels["edge"] != edge).any()


def test_pascal_parts_open_as_the_field_reads_them(tree):
    numbers = {
        1: ["hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose"],
        2: ["neck", "torso"],
        3: ["luarm", "ruarm"],
        4: ["llarm", "lhand", "rlarm", "rhand"],
        5: ["luleg", "ruleg"],
        6: ["llleg", "lfoot", "rlleg", "rfoot"],
    }
    root, truth = tree("pascal")
    seen, nobody, bare = set(), 0, 0
    for split in truth:
        index = json.loads((root / f"ImageSets/Parts/{split}.txt").read_text())
        for scene in truth[split]:
            label = np.zeros(scene.image.shape[:2], np.uint8)
            anno = scipy.io.loadmat(root / f"human_parts/{scene.id}.mat")["anno"]
            assert anno.shape == (1, 1)
            assert anno[0][0][0][0] == scene.id
            objects = anno[0][0][1][0]
            assert [int(thing[1][0][0]) for thing in objects] == index[scene.id]
            assert {str(thing[0][0]) for thing in objects} >= {"cat", "tvmonitor"}
            for thing in objects:
                assert thing[2].shape == label.shape
                assert np.unique(thing[2]).tolist() == [0, 1]
                if len(thing[3]) == 0:
                    bare += thing[1][0][0] == 15
                    continue
                for j in range(len(thing[3][0])):
                    name, mask = str(thing[3][0][j][0][0]), thing[3][0][j][1]
                    assert mask.shape == label.shape
                    if thing[1][0][0] == 15:
                        seen.add(name)
                        label[mask.astype(bool)] = next(n for n, names in numbers.items() if name in names)
            if not label.any():
                nobody += 1
                label[:] = 255
            np.testing.assert_array_equal(label, scene.labels["human_parts"])
    assert seen == {name for names in numbers.values() for name in names}
    assert nobody >= 2
    assert bare >= 2


# ---- own data ----


def test_the_folder_follows_the_readme(tree):
    root, truth = tree("folder")
    description = json.loads((root / "dataset.json").read_text())
    assert set(description["tasks"]) == {"semseg", "human_parts", "saliency", "depth", "normals", "edge"}
    assert len(description["tasks"]["semseg"]["class_names"]) == 16
    assert (root / "val.txt").read_text() == "val000\nval001\nval002\n"
    assert {"images/train000.jpg", "images/train001.png", "depth/train000.png", "depth/train003.npy"} <= files(root)
    assert {"normals/train000.png", "normals/train001.npy", "semseg/val002.png"} <= files(root)
    first, second, *_ = truth["train"]
    assert "depth" not in second.labels
    assert "human_parts" not in truth["train"][4].labels
    assert not list(root.glob("depth/train001.*")) + list(root.glob("human_parts/train004.*"))
    millimetres = pixels(root / "depth/train000.png", "I;16", "PNG")
    assert millimetres.dtype == np.uint16
    np.testing.assert_allclose(millimetres / 1000, first.labels["depth"], rtol=1e-6)
    np.testing.assert_array_equal(pixels(root / "semseg/train000.png", "L", "PNG"), first.labels["semseg"])
    assert np.unique(pixels(root / "edge/train000.png", "L", "PNG")).tolist() == [0, 255]


# ---- all ----


@pytest.mark.parametrize("layout", trees.LAYOUTS)
def test_truth_keeps_the_contract_of_samples(tree, layout):
    for scene in every(tree(layout)[1]):
        size = scene.image.shape[:2]
        assert (scene.image.dtype, scene.image.ndim, scene.image.shape[2]) == (np.uint8, 3, 3)
        for task, label in scene.labels.items():
            assert label.shape == ((*size, 3) if task == "normals" else size), task
            assert label.dtype == (np.float32 if task in ("depth", "normals") else np.uint8), task
            assert not label.flags.writeable
        length = np.linalg.norm(scene.labels["normals"], axis=-1)
        assert ((np.abs(length - 1) < 1e-3) | (length == 0)).all()
        assert (length == 0).any()
        assert 255 in scene.labels["semseg"] or layout.startswith("pascal")


def test_trees_are_a_function_of_the_seed(tmp_path):
    roots = [tmp_path / name for name in ("first", "again", "other")]
    for root, seed in zip(roots, (0, 0, 1), strict=True):
        trees.write_tree("C", root, 1, 1, 24, 32, seed)
    first, again, other = ({name: (root / name).read_bytes() for name in files(root)} for root in roots)
    assert first == again
    assert first["images/0003.png"] != other["images/0003.png"]


def test_sizes_are_heights_and_widths(copy):
    assert np.load(copy("B", height=30, width=44) / "depth/0001.npy").shape == (30, 44)
    with pytest.raises(ValueError, match="24x24"):
        copy("C", height=20)


def test_archives_hold_the_top_folder(copy, tmp_path):
    root = copy("C")
    expected = {f"C/{name}" for name in files(root)}
    for name in ("a.tgz", "b.tar.gz"):
        with tarfile.open(trees.make_archive(root, tmp_path / name), "r:gz") as archive:
            assert {m.name for m in archive.getmembers() if m.isfile()} == expected
    with zipfile.ZipFile(trees.make_archive(root, tmp_path / "c.zip")) as archive:
        assert {name for name in archive.namelist() if not name.endswith("/")} == expected


def test_it_runs_from_the_shell(tmp_path, capsys):
    root = tmp_path / "NYUD_MT"
    trees.main(["B", str(root), "--train", "2", "--val", "1", "--height", "32", "--width", "40"])
    assert "layout B, 2 train, 1 val" in capsys.readouterr().out
    assert np.load(root / "edge/0004.npy").shape == (32, 40)


# ---- faults ----


def test_files_are_cut(copy):
    root = copy("A")
    trees.truncate(root / "images/0001.jpg")
    with Image.open(root / "images/0001.jpg") as image, pytest.raises(OSError, match="truncated"):
        image.load()
    trees.cut_after_mat_header(root / "depth/0001.mat")
    assert [k for k in scipy.io.loadmat(root / "depth/0001.mat") if not k.startswith("__")] == []


def test_mat_keys_are_dropped(copy):
    root = copy("A")
    trees.drop_mat_key(root / "segmentation/0001.mat")
    assert "segmentation" not in scipy.io.loadmat(root / "segmentation/0001.mat")
    root = copy("O")
    trees.drop_mat_key(root / "nyu_depth_v2_labeled.mat", "depths")
    trees.drop_mat_key(root / "splits.mat", "testNdxs")
    with h5py.File(root / "nyu_depth_v2_labeled.mat") as file:
        assert "depths" not in file
        assert "labels" in file
    assert "trainNdxs" in scipy.io.loadmat(root / "splits.mat")
    assert "testNdxs" not in scipy.io.loadmat(root / "splits.mat")


def test_labels_are_spoilt(copy):
    root = copy("C")
    segmentation = root / "segmentation/0001.png"
    trees.set_label(segmentation)
    assert pixels(segmentation, "L", "PNG").max() == 41
    trees.crop_label(segmentation)
    assert pixels(segmentation, "L", "PNG").shape == (H - 1, W)
    trees.colour_ids(segmentation)
    assert pixels(segmentation, "RGB", "PNG")[0, 0].tolist() == [128, 0, 0]


def test_depths_are_spoilt(copy):
    depth = copy("C") / "depth/0001.npy"
    metres = np.load(depth)
    trees.depth_as_millimetres(depth)
    np.testing.assert_allclose(np.load(depth), metres * 1000)
    trees.set_nan(depth)
    assert np.isnan(np.load(depth)).sum() == 1
    depth = copy("folder") / "depth/val000.png"
    trees.depth_as_8_bit(depth)
    assert pixels(depth, "L", "PNG").max() == 255


def test_npy_of_objects_needs_pickle(copy):
    path = copy("B") / "depth/0001.npy"
    trees.pickle_npy(path)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path, allow_pickle=False)


def test_normals_are_spoilt(copy):
    root = copy("B")
    trees.normals_as_0_to_1(root / "normals/0001.npy")
    values = np.load(root / "normals/0001.npy")
    assert values.min() >= 0
    assert values.max() <= 1
    trees.normals_as_0_to_255(root / "normals/0003.npy")
    assert 200 < np.load(root / "normals/0003.npy").max() <= 255


def test_lists_and_files_disagree(copy):
    root = copy("C")
    trees.add_id(root / "gt_sets/val.txt")
    assert (root / "gt_sets/val.txt").read_text().split() == ["0001", "9999"]
    assert trees.add_stray_file(root / "images/0001.png", "8888").name == "8888.png"


@pytest.mark.parametrize(("layout", "name"), [("A", "images/0001.jpg"), ("C", "images/0001.png")])
def test_bombs_promise_what_they_do_not_hold(copy, monkeypatch, layout, name):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = copy(layout) / name
    trees.make_bomb(path, height=20_000, width=30_000)
    assert path.stat().st_size < 20_000
    with Image.open(path) as image:
        assert image.size == (30_000, 20_000)
