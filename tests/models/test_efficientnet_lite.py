"""EfficientNet-Lite: the published architecture, TensorFlow's padding, and weights in timm's names."""

import itertools

import pytest
import torch
from safetensors.torch import save_file

from kdam_hf import KdamStudent
from kdam_hf.efficientnet_lite_kdam import EfficientNetLiteBackbone, EfficientNetLiteConfig, SameConv2d
from kdam_hf.errors import BackboneWeightsError
from kdam_hf.presets import PRESETS, make_config
from kdam_hf.tasks import NYUD_V2
from kdam_hf.training import load_backbone_weights


@pytest.mark.parametrize(
    ("preset", "channels", "parameters"),
    [  # of tf_efficientnet_lite0..2, without the last pointwise convolution and the classifier
        ("efficientnet-lite0", [24, 40, 112, 320], 2_958_848),
        ("efficientnet-lite1", [24, 40, 112, 320], 3_723_520),
        ("efficientnet-lite2", [24, 48, 120, 352], 4_357_952),
    ],
)
def test_it_has_the_published_sizes(preset, channels, parameters):
    config = {key: value for key, value in PRESETS[preset].config.items() if key != "model_type"}
    with torch.device("meta"):
        backbone = EfficientNetLiteBackbone(EfficientNetLiteConfig(**config))
        maps = backbone(torch.zeros(1, 3, 96, 64)).feature_maps
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    expected = [(c, 96 // s, 64 // s) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(x.shape[1:]) for x in maps] == expected
    assert PRESETS[preset].fields == {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize("size", [(7, 8), (1, 2), (9, 5)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_convolution_covers_what_tensorflow_s_same_padding_covers(size, kernel, stride):
    """Output i sees inputs stride * i - before ... with the odd pixel of padding behind; plain sums in float64."""
    conv = SameConv2d(1, 1, kernel, stride, bias=False).double()
    x = torch.randn(1, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = conv(x)[0, 0]
    assert found.shape == tuple(-(-side // stride) for side in size)
    before = [max((-(-side // stride) - 1) * stride + kernel - side, 0) // 2 for side in size]
    wide = torch.nn.functional.pad(x[0, 0], (before[1], kernel, before[0], kernel))
    for i, j in itertools.product(*map(range, found.shape)):
        window = wide[stride * i : stride * i + kernel, stride * j : stride * j + kernel]
        assert found[i, j].item() == pytest.approx((window * conv.weight[0, 0]).sum().item())


def test_weights_in_timm_s_names_arrive_and_others_are_refused(tmp_path):
    config = make_config("student", "tiny-efficientnet-lite", NYUD_V2)
    torch.manual_seed(1)
    published = KdamStudent(config).encoder.backbone.state_dict()
    model = KdamStudent(config)
    extra = {"conv_head.weight": torch.ones(2), "bn2.bias": torch.ones(2), "classifier.bias": torch.ones(2)}
    save_file(published | extra, tmp_path / "model.safetensors")
    load_backbone_weights(model, str(tmp_path))
    assert all(torch.equal(value, model.encoder.backbone.state_dict()[key]) for key, value in published.items())
    for spoiled in (
        {key: value for key, value in published.items() if key != "conv_stem.weight"},
        published | {"blocks.9.0.conv_pw.weight": torch.ones(2)},
        published | {"bn1.weight": torch.full((32,), torch.nan)},
    ):
        save_file(spoiled, tmp_path / "model.safetensors")
        with pytest.raises(BackboneWeightsError):
            load_backbone_weights(model, str(tmp_path))


def test_activations_stay_within_relu6():
    config = make_config("student", "tiny-efficientnet-lite", NYUD_V2)
    backbone, seen = KdamStudent(config).eval().encoder.backbone, []
    for stage in backbone.blocks:
        stage[0].conv_dw.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    backbone(1e4 * torch.randn(1, 3, 64, 64))
    assert len(seen) == 7
    assert all(x.min() >= 0 and x.max() <= 6 for x in seen)
    assert max(x.max() for x in seen) == 6
