"""Every family reads its models as their own post-processing does, in our units and axes, from photos as they want them."""

import importlib.util
import json
from types import SimpleNamespace
from unittest import mock

import families_kit
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, OneFormerProcessor, PreTrainedConfig

from dataset_loaders.synthetic_rooms import SyntheticRooms
from kdam_hf.errors import CheckpointError, KdamValueError
from kdam_hf.tasks import normalised_inverse_depth
from kdam_hf.teachers import FAMILIES, find_teacher
from kdam_hf.teachers.inputs import InputRule
from kdam_hf.teachers.normals import check_axes, measured_axes, parse_axes, to_our_axes
from kdam_hf.teachers.teaching import plan_teaching
from kdam_hf.training import load_teacher

HEIGHT, WIDTH = 48, 64
TOKENS = ("dpt", "dpt-depth", "depth-anything-metric", "depth-anything", "zoedepth", "eomt", "normals", "tipsv2")
TASKS = {
    **{name: ["relative_depth"] for name in ("dpt-depth", "depth-anything")},
    **{name: ["depth"] for name in ("depth-anything-metric", "zoedepth", "zoedepth-two-ranges", "glpn", "dpt-dinov2")},
    "normals": ["normals"],
    "tipsv2": ["semseg", "depth", "normals"],
}


def photo():
    """Smooth, so that ways to resize hardly differ; (H, W, 3) uint8."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    return (127 + 120 * np.stack([np.sin(5 * x), np.cos(4 * y), np.sin(3 * (x + y))], -1)).astype(np.uint8)


def images():
    return torch.from_numpy(photo()).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module", params=families_kit.FAMILIES)
def found(request, tmp_path_factory):
    """Name, folder and loaded teacher of a family."""
    folder = families_kit.save(request.param, tmp_path_factory.mktemp(request.param))
    source = find_teacher(str(folder))
    return request.param, folder, source, source.load().requires_grad_(False)


class TestFamily:
    def test_its_tasks_are_those_of_its_config(self, found):
        name, _, source, teacher = found
        assert [task.name for task in source.tasks] == TASKS.get(name, ["semseg"])
        assert source.tasks == teacher.tasks
        assert source.tasks[0].class_names == (families_kit.CLASSES if source.tasks[0].name == "semseg" else ())

    def test_a_photo_reaches_the_model_as_its_own_processor_gives_it(self, found):
        name, folder, _, teacher = found
        if name in families_kit.NEEDS_TORCHVISION:
            pytest.skip("its processor needs torchvision")
        processor = AutoImageProcessor.from_pretrained(folder)
        off = {key: False for key in ("do_center_crop", "do_pad", "do_split_image") if getattr(processor, key, False)}
        own = torch.as_tensor(processor(Image.fromarray(photo()), return_tensors="pt", **off)["pixel_values"]).float()
        ours = teacher.rule(images())
        # their whole photo becomes one square, or a multiple of patches
        if name.startswith("eomt") or name == "dpt-dinov2":
            own = F.interpolate(own, ours.shape[-2:], mode="bilinear")
        assert ours.shape == own.shape
        assert (ours - own).abs().mean() < 0.02 * own.std()

    def test_its_maps_are_those_of_its_own_post_processing(self, found):
        name, folder, _, teacher = found
        maps = teacher(images())
        output = teacher.model(pixel_values=teacher.rule(images()), **teacher.extra_inputs(1))
        size = teacher.rule(images()).shape[-2:]
        for task, values in maps.items():
            assert values.dtype == torch.float32
            assert values.isfinite().all()
            assert values.std() > 0
            if task == "depth":
                expected = output.predicted_depth.reshape(values.shape)
                assert values.min() >= 0
            elif task == "relative_depth":
                expected = normalised_inverse_depth(output.predicted_depth.reshape(values.shape))
                assert values.median().abs() < 1e-3
            elif task == "normals":
                expected = F.normalize(output.normals, dim=1)
            else:
                self.check_classes(None if name in families_kit.NEEDS_TORCHVISION else folder, values, output, size)
                continue
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)

    @staticmethod
    def check_classes(folder, values, output, size):
        decided = F.interpolate(values, size, mode="bilinear").argmax(1)[0]
        if folder is None:
            logits = output.get("segmentation_logits", output.get("logits"))
            expected = F.interpolate(logits, size, mode="bilinear").argmax(1)[0]
        elif hasattr(output, "class_queries_logits"):
            # their post-processing adds up masks that were resized first
            masks = F.interpolate(output.masks_queries_logits, size, mode="bilinear").sigmoid()
            classes = output.class_queries_logits.softmax(-1)[..., :-1]
            expected = torch.einsum("bqc,bqhw->bchw", classes, masks).argmax(1)[0]
        else:
            post = AutoImageProcessor.from_pretrained(folder).post_process_semantic_segmentation
            expected = post(output, [tuple(size)])[0]
        assert (decided == expected).float().mean() > 0.97

    def test_its_encoder_hands_out_a_map_that_follows_the_photo(self, found):
        name, _, _, teacher = found
        maps, last = teacher.with_features(images())
        assert maps.keys() == teacher(images()).keys()
        height, width = teacher.rule(images()).shape[-2:]
        assert abs(last.shape[2] / height - last.shape[3] / width) < 1 / height, "the map has the photo's form"
        if name not in TOKENS:
            return
        for side, moved_over in ((3, (0, 1, 2)), (2, (0, 1, 3))):
            changed = images()
            half = changed.narrow(side, changed.shape[side] // 2, changed.shape[side] // 2)
            half.copy_(1 - half)
            moved = (teacher.with_features(changed)[1] - last).abs().mean(moved_over)
            assert moved[-1] > moved[0]

    def test_a_student_is_taught_on_its_own_grid_in_its_own_normalisation(self, found, kit):
        _, folder, source, teacher = found
        teaching = plan_teaching([str(folder)], ())
        assert [task.name for task in teaching.tasks] == [task.name for task in source.tasks]
        config = kit.model(tasks=teaching.tasks).config
        mean, std = (torch.tensor(values)[:, None, None] for values in (config.image_mean, config.image_std))
        mask = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
        taught = load_teacher(teaching, config)((images() - mean) / std, mask).predictions
        for task, direct in teacher(images()).items():
            assert taught[task].shape[-2:] == (HEIGHT // 4, WIDTH // 4)
            larger = direct.shape[-1] > WIDTH // 4
            expected = F.interpolate(direct, taught[task].shape[-2:], mode="bilinear", antialias=larger)
            torch.testing.assert_close(taught[task], expected, rtol=1e-2, atol=1e-2 * float(direct.abs().max()))


def test_inverse_depth_for_a_field_of_view_becomes_metres():
    """A wall at z metres has the inverse depth f / (z w) in units of the image's width w, where w / f is 2 tan(angle / 2)."""
    family, angle, z = FAMILIES["DepthProForDepthEstimation"], 60.0, torch.tensor([0.5, 2.0, 40.0]).reshape(1, 1, 3)
    inverse = 1 / (z * 2 * np.tan(np.radians(angle / 2)))
    output = SimpleNamespace(predicted_depth=inverse, field_of_view=torch.tensor([angle]))
    torch.testing.assert_close(family.maps(None, output)["depth"], z[:, None], rtol=1e-5, atol=0)
    output = SimpleNamespace(predicted_depth=1 / z, field_of_view=None)
    torch.testing.assert_close(family.maps(None, output)["depth"], z[:, None], rtol=1e-5, atol=0)


def test_oneformer_is_asked_as_its_own_processor_asks(tmp_path):
    folder = families_kit.save("oneformer", tmp_path / "oneformer")
    teacher = find_teacher(str(folder)).load()
    tokenizer, length = AutoTokenizer.from_pretrained(folder), teacher.model.config.task_seq_len
    processor = OneFormerProcessor(AutoImageProcessor.from_pretrained(folder), tokenizer, 16, length)
    expected = processor(Image.fromarray(photo()), task_inputs=["semantic"], return_tensors="pt")["task_inputs"]
    assert len(expected[0]) == 77
    assert teacher.extra_inputs(2)["task_inputs"].tolist() == expected.tolist() * 2


def test_metres_of_a_photo_do_not_depend_on_the_others_of_its_batch(tmp_path):
    teacher = find_teacher(str(families_kit.save("zoedepth-two-ranges", tmp_path / "zoe"))).load().requires_grad_(False)
    photos = torch.cat([images(), 1 - images(), torch.zeros_like(images()), torch.ones_like(images())])
    votes = torch.cat([teacher.model(pixel_values=teacher.rule(one)).domain_logits for one in photos.split(1)])
    *_, last = (x for x in teacher.model.metric_head.mlp_classifier.modules() if isinstance(x, torch.nn.Linear))
    # the boundary of the two ranges lies between these photos
    last.bias[0] -= (votes[:, 0] - votes[:, 1]).median() + 1e-6
    for features in (False, True):
        run = (lambda x: teacher.with_features(x)[0]) if features else teacher
        alone = torch.cat([run(one)["depth"] for one in photos.split(1)])
        torch.testing.assert_close(run(photos)["depth"], alone)


def test_weights_that_no_output_depends_on_may_be_missing_and_no_others(tmp_path):
    folder = families_kit.save("dpt-depth", tmp_path / "dpt")
    whole = load_file(folder / "model.safetensors")
    before = find_teacher(str(folder)).load()(images())["relative_depth"]
    unused = {key for key in whole if key.startswith("neck.fusion_stage.layers.0.residual_layer1.")}
    assert unused
    save_file({k: x for k, x in whole.items() if k not in unused}, folder / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(find_teacher(str(folder)).load()(images())["relative_depth"], before)
    needed = {key for key in whole if key.startswith("neck.fusion_stage.layers.1.residual_layer1.")}
    save_file({k: x for k, x in whole.items() if k not in needed}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="missing"):
        find_teacher(str(folder)).load()
    key = min(needed)
    save_file(whole | {key: whole[key] * float("nan")}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"finite.*{key}"):
        find_teacher(str(folder)).load()


def test_a_photo_that_would_be_padded_to_whole_patches_is_resized_to_them(tmp_path):
    rule = find_teacher(str(families_kit.save("dpt-dinov2", tmp_path / "dpt"))).load().rule
    assert rule(torch.rand(1, 3, 384, 512)).shape[-2:] == (392, 518)


def processed(change):
    """An image processor that does one thing."""
    return lambda images, return_tensors: {"pixel_values": np.asarray(change(images)).transpose(2, 0, 1)[None] / 255}


def test_what_is_smaller_than_a_pixel_of_the_reduced_photo_is_averaged():
    stripes = torch.tensor([0.0, 1, 1, 0]).repeat(3, 32, 8)[None]
    small = InputRule(processed(lambda photo: photo.resize((8, 8))), "a model")(stripes)
    assert small.shape == (1, 3, 8, 8)
    assert (small - 0.5).abs().max() < 0.1


def test_a_processor_that_adds_a_border_of_its_own_is_refused():
    with pytest.raises(KdamValueError, match="48x64"):
        InputRule(processed(lambda photo: ImageOps.expand(photo, 4)), "a model")(images())


def test_a_score_of_queries_is_the_logarithm_of_a_probability_and_finite():
    classes, masks = torch.tensor([[[0.8, 0.1, 0.1]]]), torch.tensor([0.0, -100.0]).reshape(1, 1, 1, 2)
    output = SimpleNamespace(class_queries_logits=classes.log(), masks_queries_logits=masks)
    scores = FAMILIES["Mask2FormerForUniversalSegmentation"].maps(None, output)["semseg"][0, :, 0].exp()
    torch.testing.assert_close(scores, torch.tensor([[0.4, 1e-6], [0.05, 1e-6]]), rtol=1e-3, atol=0)


def test_classes_without_a_name_have_their_number(tmp_path):
    folder = families_kit.save("segformer", tmp_path / "beta=1")  # no task
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"1": "floor", "2": "a", "3": "b", "4": "c"}}))
    assert find_teacher(str(folder)).tasks[0].class_names == ("class 0", "floor", "a", "b")


def test_a_processor_that_cannot_be_had_here_is_replaced_by_what_it_states_or_refused(tmp_path, monkeypatch):
    if importlib.util.find_spec("torchvision"):  # as where it is missing
        refusal = mock.Mock(side_effect=ImportError("DepthProImageProcessor requires the Torchvision library"))
        monkeypatch.setattr("kdam_hf.teachers.inputs.AutoImageProcessor.from_pretrained", refusal)
    folder = families_kit.save("segformer", tmp_path / "segformer")
    stated = {"image_processor_type": "DepthProImageProcessorFast", "size": families_kit.SQUARE, "do_normalize": True}
    colours = {"do_rescale": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(stated | colours))
    assert find_teacher(str(folder)).load().rule(images()).shape == (1, 3, 64, 96)
    sizeless = {key: value for key, value in stated.items() if key != "size"}
    (folder / "preprocessor_config.json").write_text(json.dumps(sizeless | colours))
    assert find_teacher(str(folder)).load().rule(images()).shape == images().shape
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match="image processor"):
        find_teacher(str(folder)).load()(images())


def test_a_revision_may_have_slashes():
    with pytest.raises(CheckpointError, match="hf auth login"):  # looked for on the Hub, and not there
        find_teacher("org/nothing@refs/pr/2")


def test_a_oneformer_without_a_tokenizer_is_refused(tmp_path):
    folder = families_kit.save("oneformer", tmp_path / "oneformer")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        find_teacher(str(folder)).load()(images())


def test_tokens_that_are_not_those_of_the_photos_patches_are_no_features(tmp_path):
    teacher = find_teacher(str(families_kit.save("dpt", tmp_path / "dpt"))).load()
    tiles = {"hidden_states": (torch.zeros(1, 65, 16),)}, (64, 64)
    teacher._run = lambda *_, **__: tiles  # of an encoder that sees them
    with pytest.raises(KdamValueError, match="DPTForSemanticSegmentation"):
        teacher.with_features(images())


def test_normals_of_any_axes_become_ours_and_wrong_axes_are_found():
    truth = F.normalize(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    theirs = truth * torch.tensor([1, -1, -1])[:, None, None]  # (right, down, front)
    for text in ("right,left,up", "right,up", "right,up,out"):
        with pytest.raises(KdamValueError, match=text):
            parse_axes(text)
    torch.testing.assert_close(to_our_axes(theirs, ("right", "down", "front")), truth)
    torch.testing.assert_close(to_our_axes(truth[:, [2, 0, 1]], ("camera", "right", "up")), truth)
    known = truth * (torch.arange(16) > 3)
    angles = measured_axes(lambda _: theirs, truth, known)
    assert min(angles, key=angles.get) == (1, -1, -1)
    assert angles[1, -1, -1] < 0.1 < 60 < angles[1, 1, 1]


def test_a_teacher_in_bf16_teaches_nearly_the_same_in_float32(tmp_path, kit):
    planned = plan_teaching([str(families_kit.save("segformer", tmp_path / "segformer"))], ())
    config, mask = kit.model(tasks=planned.tasks).config, torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    exact, fast = (load_teacher(planned, config, bf16)(images(), mask).predictions["semseg"] for bf16 in (False, True))
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().mean() < 0.1 * exact.std()


def test_axes_that_do_not_fit_the_rooms_are_refused_and_those_that_hardly_differ_are_not():
    truth = torch.from_numpy(SyntheticRooms("val", 1, 192, 256)[0]["labels"]["normals"]).permute(2, 0, 1)[None]
    turned, unsure = ([1, -1, -1], [-0.1, 1, 1])
    assert check_axes(lambda _: truth, images=1).endswith("as stated; 0 degrees off")
    with pytest.raises(KdamValueError, match="normal_axes"):
        check_axes(lambda _: truth * torch.tensor(turned)[:, None, None], images=1)
    towards = torch.tensor([0, 0, 0.5])[:, None, None]
    check_axes(lambda _: truth * torch.tensor(unsure)[:, None, None] + towards, images=1)


def test_stated_axes_turn_the_normals_and_are_part_of_who_teaches(tmp_path, kit):
    folder = str(families_kit.save("normals", tmp_path / "normals"))
    usual, turned = find_teacher(folder), find_teacher(folder, "right,down,front")
    assert usual.facts["normal_axes"] == ["right", "up", "camera"]
    assert turned.facts["normal_axes"] == ["right", "down", "front"]
    with torch.inference_mode():
        ours, theirs = (source.load()(images())["normals"] for source in (usual, turned))
    torch.testing.assert_close(theirs, ours * torch.tensor([1, -1, -1])[:, None, None])
    planned = plan_teaching([folder], (), normal_axes="right,down,front")
    assert load_teacher(planned, kit.model(tasks=planned.tasks).config).identity == planned.identity
    assert planned.identity != plan_teaching([folder], ()).identity


def test_axes_for_a_teacher_that_has_none_to_turn_are_refused(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from kdam_hf.tasks import Normals\n"
        "@dataclass\n"
        "class Settings:\n"
        "    size: int = 3\n"
        "class Own(torch.nn.Module):\n"
        "    tasks = (Normals(),)\n"
        "    settings = Settings()\n"
    )
    depth = families_kit.save("depth-anything", tmp_path / "depth")
    assert [task.name for task in find_teacher(f"{own}:Own").tasks] == ["normals"]
    for name in (f"{own}:Own", str(depth)):
        with pytest.raises(KdamValueError, match="normal_axes"):
            plan_teaching([name], (), normal_axes="right,down,front")
    for name in (str(own), "nowhere.py"):
        with pytest.raises(KdamValueError, match=f"{name}.*FILE.py:NAME"):
            find_teacher(name)


def test_what_predicts_no_dense_task_is_refused_with_the_families_there_are(tmp_path):
    for model_type, head in {"vit": "ViTForImageClassification", "gpt2": "GPT2LMHeadModel"}.items():
        AutoConfig.for_model(model_type, architectures=[head]).save_pretrained(tmp_path / model_type)
        with pytest.raises(KdamValueError, match=f"{head}.*SegformerForSemanticSegmentation"):
            find_teacher(str(tmp_path / model_type))


def test_a_licence_is_kept_a_missing_folder_a_missing_processor_and_missing_weights_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        find_teacher("nowhere")
    with mock.patch.object(PreTrainedConfig, "get_config_dict", side_effect=AssertionError("looked for on the Hub")):
        for name in ("./nowhere", "/nowhere", "a/b/nowhere"):
            with pytest.raises(CheckpointError, match=name):
                find_teacher(name)
    folder = families_kit.save("segformer", tmp_path / "segformer")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    assert find_teacher(str(folder)).facts == {"license": "cc-by-nc-4.0", "head": "SegformerForSemanticSegmentation"}
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: own-terms\n---\n")
    assert find_teacher(str(folder)).facts["license"] == "other own-terms"
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        find_teacher(str(folder)).load()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        find_teacher(str(folder))


def test_two_teachers_of_one_task_are_an_error_until_tasks_are_chosen(tmp_path):
    segformer, tips = (str(families_kit.save(name, tmp_path / name)) for name in ("segformer", "tipsv2"))
    with pytest.raises(KdamValueError, match="semseg="):
        plan_teaching([segformer, tips], ())
    teaching = plan_teaching([f"semseg={segformer}", f"depth={tips}"], ())
    assert [task.name for task in teaching.tasks] == ["semseg", "depth"]
    teaching = plan_teaching([f"semseg={segformer}", f"depth={tips}", f"normals={tips}"], ())
    assert [[task.name for task in source.tasks] for source in teaching.sources] == [["semseg"], ["depth", "normals"]]
    with pytest.raises(KdamValueError, match="normals"):
        find_teacher(f"normals={segformer}")
    with pytest.raises(KdamValueError, match="did you mean 'depth'"):
        find_teacher(f"detph={tips}")


def test_a_relative_teacher_does_not_teach_metric_labels(tmp_path, all_tasks):
    folder = str(families_kit.save("depth-anything", tmp_path / "teacher"))
    with pytest.raises(KdamValueError, match="metres"):
        plan_teaching([folder], all_tasks)
    wanted = [task.name for task in all_tasks if task.name != "depth"] + ["relative_depth"]
    found = {task.name: task.kd_weight for task in plan_teaching([folder], all_tasks, wanted).tasks}
    assert found == dict.fromkeys(wanted, 0) | {"relative_depth": 1}  # the others are learnt from labels alone


def test_a_plan_that_cannot_be_meant_is_refused(tmp_path, all_tasks):
    segformer, depth = (
        str(families_kit.save(name, tmp_path / name)) for name in ("segformer", "depth-anything-metric")
    )
    (tmp_path / "map.yaml").write_text("flat: [wall, floor]\nseat: [chair]\nlamp: ignore\n")
    for teacher, labelled, wanted, class_map, words in (
        (segformer, (), ["depht"], None, "depht"),
        (segformer, all_tasks, ["edge"], None, "semseg.*edge"),
        (segformer, (), None, "map.yaml", "lamp"),
        (depth, (), None, "map.yaml", "map.yaml"),
    ):
        with pytest.raises(KdamValueError, match=words):
            plan_teaching([teacher], labelled, wanted, class_map and str(tmp_path / class_map))
