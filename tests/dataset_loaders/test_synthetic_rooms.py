"""Properties of the synthetic rooms; the geometry is held against finite differences of the depth map in float64."""

import numpy as np
import pytest

from dataset_loaders.rooms.layout import random_scene
from dataset_loaders.rooms.raycast import cast_primitives, pixel_grid
from dataset_loaders.rooms.scene import BOX, CYLINDER, ELLIPSOID, Camera, Dice, Material, SceneBuilder
from dataset_loaders.synthetic_rooms import CLASS_NAMES, PART_NAMES, SyntheticRooms, render
from kdam_hf.errors import KdamValueError

HEIGHT, WIDTH = 120, 160
PERSON = CLASS_NAMES.index("person")
GREY = Material((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0, 1.0)


@pytest.fixture(scope="module")
def samples():
    dataset = SyntheticRooms("train", num_images=40, height=HEIGHT, width=WIDTH)
    return [dataset[index] for index in range(len(dataset))]


def rays_of(camera, height, width):
    """Camera-frame directions (3,H,W) with unit component along the optical axis, in float64."""
    grid = pixel_grid(camera, height, width)
    x, y = np.meshgrid(grid.x, grid.y)
    return np.stack([x, y, -np.ones_like(x)])


def assert_same(first, second):
    assert first["id"] == second["id"]
    np.testing.assert_array_equal(first["image"], second["image"])
    assert first["labels"].keys() == second["labels"].keys()
    for task, label in first["labels"].items():
        np.testing.assert_array_equal(label, second["labels"][task])


def test_every_call_gives_the_same_bits(samples):
    again = SyntheticRooms("train", num_images=8, height=HEIGHT, width=WIDTH)
    assert_same(again[7], samples[7])
    assert_same(again[3], samples[3])
    assert_same(again[3], samples[3])


def test_splits_seeds_and_indices_show_different_scenes(samples):
    variants = [
        samples[0],
        samples[1],
        SyntheticRooms("val", height=HEIGHT, width=WIDTH)[0],
        SyntheticRooms("train", height=HEIGHT, width=WIDTH, seed=1)[0],
    ]
    depths = [variant["labels"]["depth"] for variant in variants]
    for i in range(len(depths)):
        for j in range(i):
            assert not np.allclose(depths[i], depths[j], atol=0.1)
    assert len({variants[0]["id"], variants[1]["id"], variants[2]["id"]}) == 3


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (37, 53), (53, 37), (2, 1), (1, 1)])
def test_shapes_and_dtypes_at_any_size(height, width):
    sample = SyntheticRooms(height=height, width=width)[5]
    assert sample["id"] == "train-0000005"
    assert sample["image"].shape == (height, width, 3)
    assert sample["image"].dtype == np.uint8
    expected = {
        "semseg": ((height, width), np.uint8),
        "human_parts": ((height, width), np.uint8),
        "saliency": ((height, width), np.uint8),
        "depth": ((height, width), np.float32),
        "normals": ((height, width, 3), np.float32),
        "edge": ((height, width), np.uint8),
    }
    found = {task: (label.shape, label.dtype) for task, label in sample["labels"].items()}
    assert found == expected
    assert all(label.flags.c_contiguous and label.flags.writeable for label in sample["labels"].values())


def test_labels_stay_in_their_ranges(samples):
    for sample in samples:
        labels = sample["labels"]
        assert labels["semseg"].max() < len(CLASS_NAMES)
        assert set(np.unique(labels["human_parts"])) <= {*range(len(PART_NAMES)), 255}
        assert set(np.unique(labels["saliency"])) <= {0, 1}
        assert set(np.unique(labels["edge"])) <= {0, 1}
        assert np.isfinite(labels["depth"]).all()
        assert (labels["depth"] > 0.1).all()
        assert (labels["depth"] < 12.0).all()


def test_images_are_neither_dark_nor_blown_out(samples):
    for sample in samples:
        assert 40 < sample["image"].mean() < 215
        assert sample["image"].std() > 8


def test_normals_are_unit_vectors_that_face_the_camera():
    for index in range(6):
        scene = random_scene(np.random.default_rng([9, index]))
        normals = render(scene, HEIGHT, WIDTH, np.random.default_rng(0)).labels["normals"].astype(np.float64)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1.0, atol=1e-5)
        view = -rays_of(scene.camera, HEIGHT, WIDTH)
        facing = np.einsum("hwk,khw->hw", normals, view / np.linalg.norm(view, axis=0))
        assert facing.min() > -1e-3


def test_normals_agree_with_the_depth_map():
    """Cross products of the differences of back-projected points, wherever the depth map is locally smooth."""
    for index in range(6):
        scene = random_scene(np.random.default_rng([5, index]))
        labels = render(scene, 240, 320, np.random.default_rng(0)).labels
        depth = labels["depth"].astype(np.float64)
        points = rays_of(scene.camera, 240, 320) * depth
        right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        up = points[:, :-2, 1:-1] - points[:, 2:, 1:-1]
        estimate = np.cross(right, up, axis=0)
        estimate /= np.linalg.norm(estimate, axis=0)
        # The inverse depth of a plane is affine in the pixel: second differences vanish away from borders and creases.
        inverse = 1.0 / depth
        middle = inverse[1:-1, 1:-1]
        across = inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * middle
        down = inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * middle
        bend = np.abs(across) + np.abs(down)
        smooth = bend < 2e-4 * middle
        assert smooth.mean() > 0.7
        labelled = labels["normals"].astype(np.float64)[1:-1, 1:-1].transpose(2, 0, 1)
        angle = np.degrees(2 * np.arctan2(*(np.linalg.norm(labelled + s * estimate, axis=0) for s in (-1, 1))))[smooth]
        assert angle.mean() < 0.3
        assert np.percentile(angle, 99.5) < 3.0


@pytest.mark.parametrize("kind", [BOX, ELLIPSOID, CYLINDER])
def test_primitives_agree_with_marching_along_rays(kind):
    """Depth of one turned primitive against brute force: the first sample of a dense walk that lies inside."""
    builder = SceneBuilder()
    builder.begin("box", 0.2, 0.1, -3.0, 0.7)
    add = {BOX: builder.box, ELLIPSOID: builder.ball, CYLINDER: builder.tube}[kind]
    add((0.0, 0.0, 0.0), (0.5, 0.8, 0.3), GREY, axis=(0.36, 0.8, 0.48))
    primitives = builder.build()
    camera = Camera(np.zeros(3), np.eye(3), 0.6)
    size = 24
    depth = np.full((size, size), np.inf, dtype=np.float32)
    with np.errstate(all="ignore"):
        grid = pixel_grid(camera, size, size)
        cast_primitives(primitives, np.array([0]), camera, grid, depth, np.zeros((size, size), dtype=np.int32))
    steps = np.linspace(1.0, 5.0, 8001)
    points = rays_of(camera, size, size)[:, :, :, None] * steps - primitives.centre[0][:, None, None, None]
    local = np.einsum("ik,ihws->khws", primitives.rotation[0], points) / primitives.half[0][:, None, None, None]
    if kind == BOX:
        inside = np.abs(local).max(axis=0) <= 1
    elif kind == ELLIPSOID:
        inside = (local**2).sum(axis=0) <= 1
    else:
        inside = (local[0] ** 2 + local[2] ** 2 <= 1) & (np.abs(local[1]) <= 1)
    hit = inside.any(axis=2)
    assert 40 < hit.sum() < size * size
    assert (np.isfinite(depth) == hit).mean() > 0.995  # a grazing ray may slip between two samples
    both = np.isfinite(depth) & hit
    assert np.abs(depth[both] - steps[inside.argmax(axis=2)][both]).max() < 2e-3


def test_parts_cover_exactly_the_people(samples):
    with_people = without = 0
    for sample in samples:
        person = sample["labels"]["semseg"] == PERSON
        parts = sample["labels"]["human_parts"]
        if person.any():
            with_people += 1
            np.testing.assert_array_equal(parts > 0, person)
        else:
            without += 1
            assert (parts == 255).all()
    assert with_people
    assert without


def test_saliency_is_people_and_one_small_object(samples):
    carriers = {CLASS_NAMES.index(name) for name in ("vase", "box", "books")}
    shown = 0
    for sample in samples:
        labels = sample["labels"]
        salient = labels["saliency"] == 1
        person = labels["semseg"] == PERSON
        assert salient[person].all()
        ornament = np.unique(labels["semseg"][salient & ~person])
        assert len(ornament) <= 1
        assert set(ornament) <= carriers
        shown += len(ornament)
    assert shown > len(samples) // 2


def test_the_ornament_is_the_most_saturated_thing(samples):
    for sample in samples:
        labels = sample["labels"]
        image = sample["image"].astype(np.float64)
        bright = image.max(axis=2) > 60
        saturation = 1.0 - image.min(axis=2) / np.maximum(image.max(axis=2), 1.0)
        ornament = bright & (labels["saliency"] == 1) & (labels["semseg"] != PERSON)
        if ornament.sum() > 40:
            rest = saturation[bright & (labels["saliency"] == 0)]
            assert np.median(saturation[ornament]) > np.percentile(rest, 99)


def test_edges_are_where_the_instance_changes():
    for index in range(4):
        frame = render(random_scene(np.random.default_rng([6, index])), 61, 83, np.random.default_rng(0))
        instance, expected = frame.instance, np.zeros((61, 83), dtype=bool)
        for row in range(61):
            for column in range(83):
                right, below = instance[row, column : column + 2], instance[row : row + 2, column]
                expected[row, column] = right[0] != right[-1] or below[0] != below[-1]
        np.testing.assert_array_equal(frame.labels["edge"] == 1, expected)


def test_edges_are_thin_and_hold_all_class_borders(samples):
    for sample in samples:
        semseg, edge = sample["labels"]["semseg"], sample["labels"]["edge"]
        assert 0.005 < edge.mean() < 0.25
        assert edge[:, :-1][semseg[:, :-1] != semseg[:, 1:]].all()
        assert edge[:-1][semseg[:-1] != semseg[1:]].all()


def test_every_class_and_part_appears(samples):
    classes = set().union(*(np.unique(sample["labels"]["semseg"]) for sample in samples))
    assert classes == set(range(len(CLASS_NAMES)))
    parts = set().union(*(np.unique(sample["labels"]["human_parts"]) for sample in samples))
    assert parts - {255} == set(range(len(PART_NAMES)))


def test_objects_stay_inside_the_room():
    for index in range(20):
        scene = random_scene(np.random.default_rng([7, index]))
        furniture = scene.primitives.class_id != PERSON  # a raised hand may touch a wall
        centre = scene.primitives.centre[furniture]
        assert (centre > -0.01).all()
        assert (centre < np.array(scene.size) + 0.01).all()


def test_the_camera_is_inside_no_object():
    for index in range(20):
        scene = random_scene(np.random.default_rng([8, index]))
        primitives = scene.primitives
        offset = scene.camera.position - primitives.centre
        local = np.abs(np.einsum("nij,ni->nj", primitives.rotation, offset))
        assert ((local - primitives.half).max(axis=1) > 0.05).all()


def test_scene_does_not_depend_on_resolution():
    small = SyntheticRooms(height=60, width=80)[2]["labels"]["depth"]
    large = SyntheticRooms(height=180, width=240)[2]["labels"]["depth"][1::3, 1::3]
    # Pixel centres of the small image are those of every third pixel of the large one.
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_iteration_ends_after_the_last_image():
    dataset = SyntheticRooms("val", num_images=2, height=24, width=32)
    assert [sample["id"] for sample in dataset] == ["val-0000000", "val-0000001"]
    assert len(SyntheticRooms()) == 2000
    assert len(SyntheticRooms("val")) == 200


@pytest.mark.parametrize("index", [-1, 2])
def test_index_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError):
        SyntheticRooms(num_images=2, height=24, width=32)[index]


@pytest.mark.parametrize(
    "arguments", [{"split": "test"}, {"num_images": 0}, {"height": 0}, {"width": -3}, {"seed": -1}], ids=str
)
def test_unusable_arguments_are_refused(arguments):
    with pytest.raises(KdamValueError, match=str(next(iter(arguments.values())))):
        SyntheticRooms(**arguments)


def test_dice_stay_in_range():
    dice = Dice(np.random.default_rng(0))
    draws = {dice.integer(2, 4) for _ in range(200)}
    assert draws == {2, 3, 4}
    assert all(-1.0 <= dice.uniform(-1.0, 1.0) < 1.0 for _ in range(200))


def test_the_version_tells_apart_all_that_a_sample_depends_on():
    def version(**options):
        return SyntheticRooms(**{"height": 6, "width": 8, **options}).version

    others = [version(seed=1), version(height=8, width=6), version(width=9)]
    assert len({version(), *others}) == 4
    assert version() == version(num_images=3) == version(split="val")
