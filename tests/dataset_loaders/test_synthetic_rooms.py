"""Properties of the synthetic rooms; the geometry is held against finite differences of the depth map in float64."""

import numpy as np
import pytest

from dataset_loaders.rooms.layout import random_scene
from dataset_loaders.rooms.materials import plain
from dataset_loaders.rooms.raycast import cast, pixel_grid, rotations
from dataset_loaders.rooms.scene import BOX, CYLINDER, ELLIPSOID, PRIMITIVE, Camera, Place, SceneBuilder
from dataset_loaders.synthetic_rooms import CLASS_NAMES, PART_NAMES, SyntheticRooms, render

HEIGHT, WIDTH = 90, 120
PERSON = CLASS_NAMES.index("person")


@pytest.fixture(scope="module")
def rooms():
    return SyntheticRooms("train", num_images=60, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def samples(rooms):
    return list(rooms)


def scene_of(*seed):
    return random_scene(np.random.default_rng(seed))


def rays_of(camera, height, width):
    """Camera-frame directions (3,H,W) with unit component along the optical axis, in float64."""
    x, y = np.meshgrid(*pixel_grid(camera, height, width)[:2])
    return np.stack([x, y, -np.ones_like(x)])


def test_a_sample_depends_on_seed_split_and_index_alone(rooms, samples):
    more = SyntheticRooms("train", num_images=9, height=HEIGHT, width=WIDTH, tasks=["depth", "semseg"])
    np.random.seed(0)
    for sample in (rooms[3], more[3]):
        assert sample["id"] == samples[3]["id"] == "train-0000003"
        np.testing.assert_array_equal(sample["image"], samples[3]["image"])
        for task, label in sample["labels"].items():
            np.testing.assert_array_equal(label, samples[3]["labels"][task])
    size = {"height": HEIGHT, "width": WIDTH}
    others = [samples[3], samples[4], SyntheticRooms("val", **size)[3], SyntheticRooms(seed=1, **size)[3]]
    assert len({round(float(other["labels"]["depth"].mean()), 4) for other in others}) == 4


def test_the_version_tells_apart_all_that_a_sample_depends_on_and_iteration_ends():
    def version(**options):
        return SyntheticRooms(**{"height": 6, "width": 8, **options}).stamp(0)

    assert len({version(), version(seed=1), version(height=8, width=6), version(width=9)}) == 4
    assert version() == version(num_images=3) == version(split="val")
    dataset = SyntheticRooms("val", num_images=2, height=1, width=1)
    assert [sample["id"] for sample in dataset] == list(dataset.ids) == ["val-0000000", "val-0000001"]
    with pytest.raises(IndexError):
        dataset[-1]


def test_scenes_do_not_depend_on_the_resolution():
    small = SyntheticRooms(height=60, width=80)[2]["labels"]["depth"]
    large = SyntheticRooms(height=180, width=240)[2]["labels"]["depth"][1::3, 1::3]  # the same pixel centres
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_labels_are_in_range_and_agree_with_one_another(samples):
    """Parts are exactly the people; people and the ornament, the most saturated thing, are salient; edges hold all
    borders of classes."""
    for sample in samples:
        labels, image = sample["labels"], sample["image"].astype(np.float64)
        semseg, parts, edge, depth = (labels[task] for task in ("semseg", "human_parts", "edge", "depth"))
        person = semseg == PERSON
        assert semseg.max() < len(CLASS_NAMES)
        assert ((depth > 0.1) & (depth < 12.0)).all()
        np.testing.assert_array_equal(parts, np.where(person, np.clip(parts, 1, 6), 0 if person.any() else 255))
        ornament = (labels["saliency"] == 1) & ~person
        assert set(np.unique(labels["saliency"])) <= {0, 1}
        assert labels["saliency"][person].all()
        assert {CLASS_NAMES[k] for k in np.unique(semseg[ornament])} in ({"vase"}, {"box"}, {"books"}, set())
        assert edge[:, :-1][semseg[:, :-1] != semseg[:, 1:]].all()
        assert edge[:-1][semseg[:-1] != semseg[1:]].all()
        assert 0.005 < edge.mean() < 0.25
        saturation, bright = 1.0 - image.min(axis=2) / np.maximum(image.max(axis=2), 1.0), image.max(axis=2) > 60
        if (ornament & bright).sum() > 40:
            rest = saturation[bright & (labels["saliency"] == 0)]
            assert np.median(saturation[ornament & bright]) > np.percentile(rest, 99)


def test_everything_is_shown_often_enough_to_be_learned(samples):
    """Each class and part occurs; most rooms show people well, some show none; photos are exposed well."""
    labels = [sample["labels"] for sample in samples]
    assert {k for label in labels for k in np.unique(label["semseg"])} == set(range(len(CLASS_NAMES)))
    pixels = np.array([(label["semseg"] == PERSON).mean() for label in labels])
    assert 0.7 < (pixels > 0.02).mean() < 1.0
    assert (pixels == 0).any()
    shares = np.mean([[(label["human_parts"] == k).mean() for k in range(1, len(PART_NAMES))] for label in labels], 0)
    assert (shares > 0.003).all()
    assert np.mean([((label["saliency"] == 1) & (label["semseg"] != PERSON)).any() for label in labels]) > 0.5
    assert all(40 < sample["image"].mean() < 215 and sample["image"].std() > 8 for sample in samples)


@pytest.mark.parametrize("index", range(3))
def test_normals_agree_with_the_depth_map_and_the_camera(index):
    """Cross products of the differences of back-projected points, wherever the depth map is locally smooth."""
    scene = scene_of(5, index)
    labels = render(scene, 240, 320, np.random.default_rng(0))[1]
    depth, normals = labels["depth"].astype(np.float64), labels["normals"].astype(np.float64)
    rays = rays_of(scene.camera, 240, 320)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1.0, atol=1e-5)
    assert np.einsum("hwk,khw->hw", normals, -rays / np.linalg.norm(rays, axis=0)).min() > -1e-3  # face the camera
    points = rays * depth
    across, up = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, :-2, 1:-1] - points[:, 2:, 1:-1]
    estimate = np.cross(across, up, axis=0)
    estimate /= np.linalg.norm(estimate, axis=0)
    # The inverse depth of a plane is affine in the pixel: second differences vanish away from borders and creases.
    inverse = 1.0 / depth
    middle = inverse[1:-1, 1:-1]
    bend = np.abs(inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * middle)
    bend += np.abs(inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * middle)
    labelled = normals[1:-1, 1:-1].transpose(2, 0, 1)
    angle = np.degrees(2 * np.arctan2(*(np.linalg.norm(labelled + s * estimate, axis=0) for s in (-1, 1))))
    flat, round_ = bend < 2e-4 * middle, (bend < 2e-3 * middle) & (labels["semseg"][1:-1, 1:-1] == PERSON)
    assert flat.mean() > 0.5
    assert angle[flat].mean() < 0.3
    assert np.percentile(angle[flat], 99.5) < 3.0
    assert round_.sum() == 0 or np.median(angle[round_]) < 2.0


@pytest.mark.parametrize("kind", [BOX, ELLIPSOID, CYLINDER])
def test_primitives_agree_with_marching_along_rays(kind):
    """Depth of one turned primitive against brute force: the first sample of a dense walk that lies inside."""
    builder, axis, half, size = SceneBuilder(np.random), np.array([0.36, 0.8, 0.48]), (0.5, 0.8, 0.3), 20
    builder.begin("box", Place(0.2, 0.1, -3.0, 0.7))
    builder.add(kind, (0.0, 0.0, 0.0), half, plain((0.5, 0.5, 0.5)), axis=tuple(axis))
    camera = Camera(np.zeros(3), np.eye(3), 0.6)
    depth, _ = cast(np.array(builder.primitives, PRIMITIVE), camera, size, size)
    turn = np.array([[np.cos(0.7), 0, np.sin(0.7)], [0, 1, 0], [-np.sin(0.7), 0, np.cos(0.7)]])
    side = np.cross(axis, [0, 0, 1]) / np.linalg.norm(np.cross(axis, [0, 0, 1]))
    frame = turn @ np.stack([side, axis, np.cross(side, axis)], axis=1)
    steps = np.linspace(2.0, 4.0, 1001)
    points = rays_of(camera, size, size)[..., None] * steps - np.array([0.2, 0.1, -3.0])[:, None, None, None]
    local = np.einsum("ik,ihws->khws", frame, points) / np.array(half)[:, None, None, None]
    inside = {
        BOX: np.abs(local).max(axis=0) <= 1,
        ELLIPSOID: (local**2).sum(axis=0) <= 1,
        CYLINDER: (local[0] ** 2 + local[2] ** 2 <= 1) & (np.abs(local[1]) <= 1),
    }[kind]
    hit = inside.any(axis=2)
    assert 30 < hit.sum() < size * size
    assert (np.isfinite(depth) == hit).mean() > 0.995  # a grazing ray may slip between two samples
    both = np.isfinite(depth) & hit
    assert np.abs(depth[both] - steps[inside.argmax(axis=2)][both]).max() < 4e-3


@pytest.mark.parametrize("index", range(12))
def test_furniture_is_inside_the_room_and_the_camera_inside_nothing(index):
    scene = scene_of(7, index)
    primitives, position = scene.primitives, scene.camera.position
    fixed = primitives[6:][primitives["class_id"][6:] != PERSON]  # after the slabs; a raised hand may touch a wall
    assert ((fixed["centre"] > -0.01) & (fixed["centre"] < np.array(scene.size) + 0.01)).all()
    local = np.abs(np.einsum("nij,ni->nj", rotations(primitives), position - primitives["centre"]))
    assert ((local - primitives["half"]).max(axis=1) > 0.05).all()
