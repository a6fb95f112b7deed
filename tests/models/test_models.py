"""Models and their configs: any backbone, any size, saved and loaded, alone and in the package."""

import json
import re
import runpy
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import AutoModel

import kdam_hf
from kdam_hf import KdamImageProcessor, KdamOutput, KdamStudent, KdamStudentConfig, KdamTeacher
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import ACTIVATIONS, CrossTaskAttention, StudentDecoder, resize
from kdam_hf.objective import Objective
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.pretrained import load_model
from kdam_hf.tasks import task_from_spec

ROLES = {"teacher": KdamTeacher, "student": KdamStudent}
TINY = [name for name in PRESETS if name.startswith("tiny-")]


def build(role, preset, tasks, seed=0, **overrides):
    torch.manual_seed(seed)
    return ROLES[role](make_config(role, preset, tasks, **overrides)).eval()


def image(batch=1, height=64, width=96, seed=0):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("role", ROLES)
def test_every_backbone_predicts_every_task_at_stride_4_for_any_size(role, preset, all_tasks):
    model = build(role, preset, all_tasks)
    for height, width in ((64, 96), (61, 83)):
        predictions = model(image(2, height, width)).predictions
        assert list(predictions) == [t.name for t in all_tasks]
        for task in all_tasks:
            assert predictions[task.name].shape == (2, task.channels, -(-height // 4), -(-width // 4))
            assert predictions[task.name].isfinite().all()
    assert (predictions["depth"] > 0).all()
    assert torch.allclose(predictions["normals"].norm(dim=1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("preset", ["tiny-resnet", "tiny-efficientnet-lite", "tiny-swin"])
@pytest.mark.parametrize("role", ROLES)
def test_where_the_border_repeats_itself_another_size_changes_nothing(role, preset, all_tasks):
    """Size invariance: what is padded to a multiple of 32 looks like more of the same photo."""
    model, whole = build(role, preset, all_tasks), image(1, 96, 128)
    whole[..., 84:, :], whole[..., 113:] = whole[..., 84:85, :], whole[..., 113:114]
    expected = model(whole).predictions
    for height, width in ((95, 127), (90, 120), (85, 114)):
        # the mask of padding, which the teacher's attention leaves out, is what differs
        photo = whole[..., :height, :width]
        masked = model(photo, torch.ones(1, height, width, dtype=torch.bool)).predictions
        for name, found in model(photo).predictions.items():
            assert torch.equal(found, masked[name]), "no mask means every pixel, and none of the padding inside"
            same = expected[name][..., : found.shape[2], : found.shape[3]]
            apart = (found - same).abs().mean() / same.abs().mean()
            assert apart < (1e-6 if role == "student" else 0.01), (name, height, width)


def test_untrained_heads_predict_what_they_are_told_to_start_at(all_tasks):
    for role in ROLES:
        model = build(role, "tiny-resnet", all_tasks).train()
        model.start_at({"depth": [3.0], "edge": [-2.0], "normals": [0.0, 0.6, 0.8]})
        found = model(image()).predictions
        assert found["depth"].mean().item() == pytest.approx(3, abs=0.3)
        assert found["edge"].mean().item() == pytest.approx(-2, abs=0.3)
        mean = torch.nn.functional.normalize(found["normals"].mean((0, 2, 3)), dim=0)
        assert torch.allclose(mean, torch.tensor([0, 0.6, 0.8]), atol=0.15)


def test_separable_heads_are_a_fraction_of_the_others(all_tasks):
    sizes = []
    for head in ("conv", "separable"):
        model = build("student", "tiny-resnet", all_tasks, head=head, decoder_channels=64, head_channels=32)
        sizes.append(sum(p.numel() for p in model.decoder.heads.parameters()))
    assert sizes[1] < sizes[0] / 4


@pytest.mark.fault(27, 28)
@pytest.mark.parametrize(("role", "preset"), [*(("teacher", name) for name in TINY), ("student", "tiny-resnet")])
def test_saved_models_come_back_through_automodel_with_the_same_keys_and_outputs(role, preset, all_tasks, tmp_path):
    model = build(role, preset, all_tasks)
    model.save_pretrained(tmp_path)
    in_file = load_file(tmp_path / "model.safetensors")  # Trainer resumes from it
    assert set(in_file) == set(model.state_dict())
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert list(again.decoder.heads) == [task.name for task in all_tasks], "not in the order of the sorted config.json"
    for other in (again.eval(), load_model(str(tmp_path))):
        for name, value in model(image()).predictions.items():
            assert torch.equal(value, other(image()).predictions[name]), name
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, dict(again.named_buffers())[name]), f"buffer {name} was lost on the meta device"


def test_every_preset_hands_out_four_maps(all_tasks):
    for name in PRESETS:
        assert len(make_config("student", name, all_tasks).backbone_config.out_features) == 4, name


def test_weights_follow_the_seed_and_are_kaiming_in_the_decoder_not_a_flat_normal(all_tasks):
    sizes = {"decoder_channels": 64, "head_channels": 64}
    a, b, c = (build("student", "tiny-resnet", all_tasks, seed, **sizes).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    assert a["decoder.heads.depth.0.0.weight"].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_projecting_before_upsampling_equals_projecting_the_concatenation(all_tasks):
    config = make_config("student", "tiny-resnet", all_tasks)
    decoder = StudentDecoder([4, 6, 8, 10], config).double().eval()
    maps = [torch.randn(1, c, 32 // 2**k, 32 // 2**k, dtype=torch.float64) for k, c in enumerate((4, 6, 8, 10))]
    weight = torch.cat([p.weight for p in decoder.project], dim=1)
    stacked = torch.cat([resize(m, (32, 32)) for m in maps], dim=1)
    shared = torch.nn.functional.relu(decoder.norm(torch.nn.functional.conv2d(stacked, weight)))
    for name, value in decoder(maps, (32, 32), None).items():
        torch.testing.assert_close(value, decoder.heads[name](shared))


def test_attention_moves_information_between_tasks_but_not_out_of_the_padding():
    torch.manual_seed(0)
    block = CrossTaskAttention(16, 2, 4, tasks=3).eval()
    x, mask = torch.randn(1, 3, 16, 8, 8, requires_grad=True), torch.ones(1, 1, 8, 8)
    mask[..., 4:] = 0
    block(x, mask)[:, 0, ..., :4].sum().backward()
    assert (x.grad[..., :4].abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    assert (x.grad[..., 4:] == 0).all()


def test_attention_memory_is_linear_in_pixels():
    block, sizes = CrossTaskAttention(16, 2, 4, tasks=2), []
    for side in (16, 32):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()), lambda _: None):
            block(torch.randn(1, 2, 16, side, side), None)
        sizes.append(sum(saved))
    assert sizes[1] < 4.2 * sizes[0]


def test_a_model_without_a_task_or_with_three_maps_is_refused(all_tasks):
    three = PRESETS["tiny-resnet"].config | {"out_indices": [2, 3, 4]}
    for config in (make_config("student", "tiny-resnet", ()), make_config("student", "tiny-resnet", all_tasks, three)):
        with pytest.raises(ValueError, match=r"config\.tasks is empty|yields 3 maps"):
            KdamStudent(config)
    for role, field, value in (("teacher", "decoder_channels", 30), ("student", "head", "other")):
        with pytest.raises(KdamValueError, match=f"{field}.*{value}"):
            make_config(role, "tiny-resnet", all_tasks, **{field: value})


def test_a_task_entry_that_cannot_be_meant_is_refused_before_a_model_is_built(all_tasks):
    spec = all_tasks[0].spec()
    without = {key: value for key, value in spec.items() if key != "class_names"}
    changed = [[spec | change] for change in ({"activation": "exponential"}, {"weight": 1}, {"class_names": None})]
    for tasks in ([spec, spec], [without], *changed):
        with pytest.raises((ValueError, StrictDataclassError)):
            KdamStudentConfig(tasks=tasks)


@pytest.mark.fault(20)
def test_images_of_a_wrong_shape_are_refused(all_tasks):
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        build("student", "tiny-resnet", all_tasks)(torch.zeros(1, 1, 8, 8))


def test_importing_the_package_registers_the_models_without_the_heavy_parts(all_tasks, tmp_path):
    model = build("student", "tiny-resnet", all_tasks)
    model.save_pretrained(tmp_path)
    KdamImageProcessor.from_model_config(model.config).save_pretrained(tmp_path)
    code = f"""
import sys, json
import kdam_hf
heavy = ("evaluate", "datasets", "transformers.trainer", "transformers.pipelines.text_generation")
heavy = [name for name in heavy if name in sys.modules]
from transformers import AutoConfig, AutoModel, AutoImageProcessor
names = [type(c.from_pretrained({str(tmp_path)!r})).__name__ for c in (AutoConfig, AutoModel, AutoImageProcessor)]
print(json.dumps([heavy, names]))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == [[], ["KdamStudentConfig", "KdamStudent", "KdamImageProcessor"]]


def test_no_pixel_of_depth_gets_stuck_at_the_camera_and_the_gradient_of_untrained_normals_is_bounded():
    """Padding and flat regions make raw outputs exactly zero, where a normalised vector has no direction."""
    raw = torch.tensor([-50.0, -1.0, 0.0, 2.5], requires_grad=True)
    metres = ACTIVATIONS["positive"](raw)
    torch.testing.assert_close(metres, torch.tensor([0.1, 0.1, 1.0, 3.5]))
    metres.sum().backward()
    assert torch.equal(raw.grad, torch.ones(4))
    raw = torch.zeros(1, 3, 4, 4, requires_grad=True)
    unit = ACTIVATIONS["unit"](raw)
    assert torch.equal(unit[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    unit[:, 0].sum().backward()
    assert raw.grad.abs().max() <= 1
    raw = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).requires_grad_()
    ACTIVATIONS["unit"](raw).sum().backward()
    assert raw.grad.abs().max() <= 100.01


def test_a_pooled_token_is_the_mean_over_the_pixels_of_its_cell_that_are_no_padding():
    block, y, mask = CrossTaskAttention(16, 2, 2, tasks=3), torch.randn(1, 48, 8, 8), torch.ones(1, 1, 8, 8)
    mask[..., 5:], mask[:, :, 4:] = 0, 0
    tokens, alive = block._pool(y, mask, 3)
    assert alive.tolist() == [[True, True, False, False] * 3]
    cells = torch.stack([y[..., :4, :4].mean((2, 3)), y[..., :4, 4].mean(2)], 1).reshape(1, 2, 3, 16).transpose(1, 2)
    torch.testing.assert_close(tokens.reshape(1, 3, 4, 16)[:, :, :2], cells)


def test_padding_takes_no_share_of_the_attention():
    torch.manual_seed(0)
    block = CrossTaskAttention(16, 2, 4, tasks=3).eval()
    x, mask = 3 * torch.randn(1, 3, 16, 4, 4).repeat_interleave(2, -1), torch.ones(1, 1, 4, 8)
    mask[..., 4:] = 0
    torch.testing.assert_close(block(x, mask)[..., :4], block(x[..., :4], None))


def test_without_a_mask_whole_cells_of_padding_are_left_out_too(all_tasks):
    model, photo = build("teacher", "tiny-resnet", all_tasks), image(1, 70, 100)
    masked = model(photo, torch.ones(1, 70, 100, dtype=torch.bool)).predictions
    assert all(torch.equal(x, masked[name]) for name, x in model(photo).predictions.items())


def test_a_photo_smaller_than_one_cell_of_the_attention_is_seen(all_tasks):
    model, seen = build("teacher", "tiny-resnet", all_tasks), []
    model.decoder.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    model(image(1, 8, 8))
    assert seen[0].tolist() == [[[[1, 0], [0, 0]]]]


def test_a_torchvision_that_does_not_fit_torch_is_named(tmp_path, monkeypatch):
    """Beside it nothing of transformers can be imported, and its own message names another module."""
    files = {"torchvision/__init__.py": "raise RuntimeError('operator torchvision::nms does not exist')"}
    files["torchvision-0.1.dist-info/METADATA"] = "Name: torchvision\nVersion: 0.1\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    with pytest.raises(ImportError, match=re.escape(f"torchvision 0.1 does not fit torch {torch.__version__}")):
        runpy.run_path(kdam_hf.__file__)


@pytest.mark.parametrize(
    ("preset", "dtype"),
    [*((name, torch.bfloat16) for name in TINY), *((name, torch.float16) for name in ("tiny-resnet", "tiny-swinv2"))],
)
def test_a_model_of_half_precision_takes_float32_images_and_predicts_alike_in_float32(
    preset, dtype, all_tasks, tmp_path
):
    model = build("student", preset, all_tasks)
    expected = model(image(2, 61, 83)).predictions
    model.to(dtype).save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype="auto").eval()
    assert half.dtype == dtype
    if preset == "tiny-swinv2" and dtype == torch.float16:
        with pytest.raises(ValueError, match="bfloat16"):
            half(image(2, 61, 83))
        return
    for name, found in half(image(2, 61, 83)).predictions.items():
        assert found.dtype == torch.float32
        most = 0.05 * expected[name].abs().mean() + 1e-6  # a head may start at 1e-9
        assert (found - expected[name]).abs().mean() < most, name


def test_the_ways_to_load_a_model_give_the_same_model_also_from_shards(all_tasks, tmp_path):
    model = build("student", "tiny-dinov2", all_tasks)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    expected = model(image()).predictions
    ways = {"attn_implementation": ("eager", "sdpa"), "device_map": ("auto", {"": "cpu"})}
    for how in ({option: value} for option, values in ways.items() for value in values):
        again = AutoModel.from_pretrained(tmp_path, **how).eval()
        assert again.encoder.backbone.config._attn_implementation == how.get("attn_implementation", "sdpa")
        for name, found in again(image()).predictions.items():
            torch.testing.assert_close(found, expected[name])
    build("student", "tiny-resnet", all_tasks).save_pretrained(tmp_path / "resnet")
    with pytest.raises(ValueError, match="ResNetBackbone"):  # which has none
        AutoModel.from_pretrained(tmp_path / "resnet", attn_implementation="sdpa")


@pytest.mark.parametrize("more", [{}, {"loss": torch.ones(())}, {"hidden_states": (torch.ones(1),)}], ids=list)
def test_an_output_survives_what_gathers_and_converts_it(more):
    output = KdamOutput(predictions={"loss": torch.ones(2), "depth": torch.zeros(2)}, **more)
    for again in map(KdamOutput, (dict(output), (pair for pair in output.items()), output.items())):
        assert set(again) == {"predictions", *more}
        assert again.predictions is again["predictions"] is output.predictions
        assert again[0] is more.get("loss", output.predictions)
        assert (again.loss, again.hidden_states) == (more.get("loss"), more.get("hidden_states"))


@pytest.mark.parametrize("role", ROLES)
def test_labels_give_the_supervised_loss_of_the_objective(role, all_tasks):
    model = build(role, "tiny-resnet", all_tasks)
    raw = {t.name: np.ones((30, 44, *t.label.shape_suffix), t.label.dtype) for t in all_tasks}
    labels = {task.name: task.label.to_tensor(raw[task.name])[None] for task in all_tasks}
    mask = torch.ones(1, 30, 44, dtype=torch.bool)
    mask[..., 40:] = False
    for given in (mask, None):
        output = model(image(1, 30, 44), given, labels=labels)
        objective = Objective([task_from_spec(spec) for spec in model.config.tasks])
        seen = torch.ones_like(mask) if given is None else given
        expected = objective.total(objective(output.predictions, labels, seen))
        assert output.loss == expected > 0
    output.loss.backward()
    with pytest.raises(KdamValueError, match="depth"):
        model(image(1, 30, 44), labels={name: x for name, x in labels.items() if name != "depth"})
    model.loss_type = None  # as of a class that was loaded where the package was not imported
    with pytest.raises(ValueError, match="import kdam_hf"):
        model(image(1, 30, 44), labels=labels)
