"""The term of features is the mean squared distance of unit vectors over valid pixels, alone or beside a method."""

import json

import numpy as np
import pytest
import torch
from conftest_kit import ROOMS, SMALL

from kdam_hf.commands.distill import main as distill
from kdam_hf.distillation.methods import Batch, Features, make_method
from kdam_hf.errors import KdamValueError
from kdam_hf.modeling_kdam import KdamStudent
from kdam_hf.training import load_model


def reference(mine, theirs, weight, bias, valid):
    total = 0.0
    for b, i, j in np.argwhere(valid):
        p, q = weight @ mine[b, :, i, j] + bias, theirs[b, :, i, j]
        total += ((p / np.linalg.norm(p) - q / np.linalg.norm(q)) ** 2).sum()
    return total / valid.sum()


def test_the_term_agrees_with_its_definition_over_valid_pixels(kit):
    method = Features(kit.tasks, 0.7, 5, 7)
    mine, theirs = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 4)
    small = torch.ones(2, 3, 4, dtype=torch.bool)
    small[1, :, 2:] = False
    valid = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    batch = Batch({}, {}, valid, valid.sum().float(), features=([mine], [theirs]))
    weight, bias = (p.detach().double().numpy() for p in method.projector.parameters())
    expected = 0.7 * reference(*(x.double().numpy() for x in (mine, theirs)), weight[..., 0, 0], bias, small.numpy())
    assert method.terms(batch)["kd_features"].item() == pytest.approx(expected, rel=1e-5)


def test_features_are_learnt_through_the_command_and_the_projection_stays_in_the_checkpoint(kit, teacher):
    output = kit.root / "run"
    options = [*SMALL, *ROOMS, "--crop_width", "64", "--max_steps", "2", "--save_steps", "1"]
    distill(["--teacher", teacher, "--features", "0.5", *options, "--output_dir", str(output)])
    state = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())
    logged = state["log_history"][0]
    assert 0 < logged["kd_features"] <= 2
    assert logged["kd_inter_task"] > 0
    assert json.loads((output / "results.json").read_text())["meta"]["distillation"]["features"] == 0.5
    assert (output / "checkpoint-2" / "objective.safetensors").exists()
    assert isinstance(load_model(str(output)), KdamStudent)
    cache = ["--teacher_views", "1", "--teacher_cache", str(kit.root / "cache")]
    for more, named in ((cache, "teacher_cache"), (["--crop_width", "48"], "crop_width 48")):
        with pytest.raises(KdamValueError, match=named):
            distill(["--teacher", teacher, "--features", "0.5", *options, *more, "--output_dir", str(output) + "2"])


def term(valid, mine, theirs, method):
    batch = Batch({}, {}, valid, valid.sum().float(), features=([mine], [theirs]))
    return method.terms(batch)["kd_features"].item()


def test_a_cell_that_is_half_padding_counts_half(kit):
    found, maps = [], (torch.randn(1, 5, 1, 2), torch.randn(1, 7, 1, 2), Features(kit.tasks, 1.0, 5, 7))
    for begin, end in ((0, 6), (0, 4), (4, 8)):
        valid = torch.zeros(1, 4, 8, dtype=torch.bool)
        valid[..., begin:end] = True
        found.append(term(valid, *maps))
    assert found[0] == pytest.approx((2 * found[1] + found[2]) / 3, rel=1e-5)


def test_the_teachers_map_is_brought_to_the_students_size_with_pixel_centres_kept(kit):
    method, mine, theirs = Features(kit.tasks, 1.0, 5, 7), torch.randn(1, 5, 2, 2), torch.randn(1, 7, 4, 4)
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    halved = torch.nn.functional.avg_pool2d(theirs, 2)
    assert term(valid, mine, theirs, method) == pytest.approx(term(valid, mine, halved, method), rel=1e-5)


def test_a_weight_of_zero_beside_a_method_is_refused(kit):
    with pytest.raises(KdamValueError, match="cs"):
        Features(kit.tasks, 0.0, 5, 7, beside=make_method("cs", kit.tasks))
