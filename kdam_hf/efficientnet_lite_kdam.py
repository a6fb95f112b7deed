"""EfficientNet-Lite as a backbone of transformers: ReLU6 and no squeeze-and-excitation, so that it runs in int8 on devices.

Parameters have timm's names, so that published `tf_efficientnet_lite*` weights fit; images are RGB / 255 with mean and
standard deviation 0.5. Source: github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import math
from typing import Any

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

STEM = 32
# kernel, stride, expansion, channels, repeats
STAGES = (
    *((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)),
    *((5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
)
LAST_OF_STRIDE = (1, 2, 4, 6)
"""The stages whose maps are handed out, at strides 4, 8, 16 and 32."""


@strict
class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of `EfficientNetLiteBackbone`.

    Args:
        width_coefficient: of the channels of all stages: 1.0 (Lite0, Lite1), 1.1 (Lite2).
        depth_coefficient: of the blocks of all stages but the first and last: 1.0 (Lite0), 1.1 (Lite1), 1.2 (Lite2).
        hidden_act: the activation of all blocks.
    """

    model_type = "efficientnet_lite"

    width_coefficient: float = 1.0
    depth_coefficient: float = 1.0
    hidden_act: str = "relu6"

    def __post_init__(self, **kwargs: Any) -> None:
        """Name the maps, and which of them are handed out."""
        self.stage_names = ["stem", "stage1", "stage2", "stage3", "stage4"]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    def channels(self, base: int) -> int:
        """Scaled by the width, to a multiple of 8 that is not more than a tenth smaller."""
        scaled = base * self.width_coefficient
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def repeats(self, stage: int) -> int:
        """Blocks of a stage."""
        base = STAGES[stage][4]
        return base if stage in (0, len(STAGES) - 1) else math.ceil(base * self.depth_coefficient)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: the odd pixel goes to the right and to the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride))."""
        if self.stride == (1, 1):
            return F.conv2d(x, self.weight, None, 1, self.kernel_size[0] // 2, 1, self.groups)
        pads: list[int] = []
        for size in x.shape[:1:-1]:
            pad = (-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size
            pads += [pad // 2, pad - pad // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution: the block of the first stage, which has no expansion."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(in_channels, in_channels, kernel, stride, groups=in_channels, bias=False)
        self.bn1 = _norm(in_channels)
        self.conv_pw, self.bn2 = nn.Conv2d(in_channels, out_channels, 1, bias=False), _norm(out_channels)
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w)."""
        y = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        y = self.bn2(self.conv_pw(y))
        return x + y if self.skip else y


class InvertedBlock(nn.Module):
    """Expansion, depthwise convolution, linear projection (MobileNetV2)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.conv_pw, self.bn1 = nn.Conv2d(in_channels, middle, 1, bias=False), _norm(middle)
        self.conv_dw = SameConv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self.bn2 = _norm(middle)
        self.conv_pwl, self.bn3 = nn.Conv2d(middle, out_channels, 1, bias=False), _norm(out_channels)
        self.skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w)."""
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.skip else y


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    """The stem and the seven stages; maps at strides 2, 4, 8, 16 and 32."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        widths = [config.channels(stage[3]) for stage in STAGES]
        self.conv_stem, self.bn1 = SameConv2d(3, STEM, 3, 2, bias=False), _norm(STEM)
        self.blocks = nn.ModuleList()
        last = STEM
        for k, (kernel, stride, expansion, _, _) in enumerate(STAGES):
            blocks = nn.Sequential()
            for r in range(config.repeats(k)):
                block = last, widths[k], kernel, 1 if r else stride
                blocks.append(InvertedBlock(*block, expansion) if k else SeparableBlock(*block))
                last = widths[k]
            self.blocks.append(blocks)
        self.num_features = [STEM, *(widths[k] for k in LAST_OF_STRIDE)]
        self.post_init()

    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None, **kwargs: Any) -> BackboneOutput:
        """(B, 3, H, W) -> the maps named by `out_features`, finest first."""
        x = F.relu6(self.bn1(self.conv_stem(pixel_values)), inplace=True)
        maps = [x]
        for k, stage in enumerate(self.blocks):
            x = stage(x)
            if k in LAST_OF_STRIDE:
                maps.append(x)
        chosen = tuple(x for x, name in zip(maps, self.stage_names, strict=True) if name in self.out_features)
        return BackboneOutput(feature_maps=chosen, hidden_states=tuple(maps) if output_hidden_states else None)


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
