"""KDAM teacher and student: any `AutoBackbone`, a decoder, one head per task; predictions at stride 4.

Unusual here: images of any size are padded on the right and at the bottom to a multiple of 32 inside the model, by
repeating the border, and predictions are cropped to ceil(size / 4), so prediction (i, j) always covers pixels 4i..4i+3,
4j..4j+3. Losses are the trainer's business.

Shape suffixes: B batch, T tasks, C/D channels, H W pixels, h w a stride-4 or coarser grid, N tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BackboneOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING
from transformers.utils import ModelOutput

from .configuration_kdam import STRIDE, KdamConfig, KdamStudentConfig, KdamTeacherConfig
from .weights_kdam import HUB_OPTIONS, WEIGHTS, find_weights, refuse_incomplete, refuse_non_finite

SIZE_DIVISOR = 32
SHORTEST_DEPTH = 0.1
# keys of padded windows are zero and are divided by their norm plus 1e-12, which is 0 in float16
NOT_IN_FLOAT16 = ("swinv2",)


def positive(x: Tensor) -> Tensor:
    """max(1 + x, 0.1) in metres whose gradient is that of 1 + x everywhere, so that no pixel gets stuck at the camera.

    A softplus or exponential has next to no gradient where it is near zero: a region once predicted there stays there.
    """
    metres = 1 + x
    return metres + (metres.clamp_min(SHORTEST_DEPTH) - metres).detach()


def unit(x: Tensor) -> Tensor:
    """Unit vectors (B, 3, h, w) of an offset from the direction to the camera.

    The gradient of a normalised vector explodes at zero, where an untrained head starts; hence the offset.
    """
    return F.normalize(x + x.new_tensor([0.0, 0.0, 1.0])[:, None, None], dim=1, eps=1e-2)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "positive": positive, "unit": unit}
AT_ZERO = {"none": [0.0], "positive": [1.0], "unit": [0.0, 0.0, 1.0]}
"""What an activation makes of zero; all of them add their argument to it."""


@dataclass
class KdamOutput(ModelOutput):
    """Output of both models; may be built from a dict or pairs of its fields, as gathering and mixed precision do.

    Args:
        loss: scalar, float32; None without labels.
        predictions: task name -> (B, C, ceil(H/4), ceil(W/4)): logits, metres or unit vectors, as the task says.
        hidden_states: the four maps (B, C_k, h_k, w_k) of the backbone, finest first; None unless asked for.
    """

    loss: Tensor | None = None
    predictions: dict[str, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def resize(x_BCHW: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear resize to `size`, pixel centres kept."""
    return F.interpolate(x_BCHW, size=tuple(size), mode="bilinear", align_corners=False)


def conv_norm_act(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class Predictor(nn.Conv2d):
    """The last, pointwise convolution of a head. It starts small, so that the first steps keep a pretrained backbone."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


def separable_conv_norm_act(in_channels: int, out_channels: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, batch norm, ReLU: a fraction of the cost of `conv_norm_act`."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, *conv_norm_act(in_channels, out_channels, 1))


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"conv": conv_norm_act, "separable": separable_conv_norm_act}


class PyramidAdapter(nn.Module):
    """Strides 4, 8, 16, 32 out of the equal-stride maps of a plain ViT (the simple feature pyramid of ViTDet, 2022)."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        c = channels[0]
        self.channels = [c // 4, c // 2, c, c]
        finest = nn.Sequential(nn.ConvTranspose2d(c, c // 2, 2, 2), nn.GELU(), nn.ConvTranspose2d(c // 2, c // 4, 2, 2))
        coarse = (nn.ConvTranspose2d(c, c // 2, 2, 2), nn.Identity(), nn.MaxPool2d(2, ceil_mode=True))
        self.scales = nn.ModuleList([finest, *coarse])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map k of the ViT becomes level k of the pyramid."""
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]


class HiddenStateBackbone(nn.Module):
    """A model that `AutoBackbone` does not offer, but whose hidden states are maps, such as SegFormer's encoder.

    Of several maps of one size the last is taken; the four smallest sizes are handed out.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config, self.model = config, AutoModel.from_config(config).eval()
        with torch.no_grad():
            maps = self._states(torch.zeros(1, 3, 2 * SIZE_DIVISOR, 2 * SIZE_DIVISOR))
        last = {x.shape[-2:]: k for k, x in enumerate(maps) if x.ndim == 4}
        self.places = sorted(last.values())[-4:]
        self.channels = [maps[k].shape[1] for k in self.places]
        self.out_features = [f"hidden_states[{k}]" for k in self.places]
        self.train()

    def _states(self, pixel_values: Tensor) -> Sequence[Tensor]:
        return self.model(pixel_values, output_hidden_states=True).hidden_states

    def forward_with_filtered_kwargs(self, pixel_values: Tensor) -> BackboneOutput:
        """(B, 3, H, W) -> four maps, finest first."""
        states = self._states(pixel_values)
        return BackboneOutput(feature_maps=tuple(states[k] for k in self.places))


class PyramidEncoder(nn.Module):
    """A backbone that always yields four maps, finest first."""

    def __init__(self, config: KdamConfig) -> None:
        super().__init__()
        backbone_config: Any = config.backbone_config
        known = type(backbone_config) in MODEL_FOR_BACKBONE_MAPPING
        self.backbone = AutoBackbone.from_config(backbone_config) if known else HiddenStateBackbone(backbone_config)
        declared = self.declared = list(self.backbone.channels)
        if len(declared) != 4:
            given = f"backbone {backbone_config.model_type} yields {len(declared)} maps {self.backbone.out_features}"
            raise ValueError(
                f"{given}; expected 4. Set out_indices: four stages of a pyramid, or four layers of a ViT."
            )
        plain = len(set(declared)) == 1
        if plain and not hasattr(backbone_config, "patch_size"):
            given = f"backbone {backbone_config.model_type} yields four maps of {declared[0]} channels and states no patch_size"
            raise ValueError(f"{given}; expected a pyramid, or a ViT of transformers such as facebook/dinov2-small.")
        self.patch = int(backbone_config.patch_size) if plain else 1
        self.adapter = PyramidAdapter(declared) if plain else None
        self.channels: list[int] = self.adapter.channels if self.adapter is not None else declared

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C_k, h_k, w_k).

        A plain ViT cuts off what its patches do not cover, so the image is stretched to whole patches first.
        """
        if pixel_values.dtype == torch.float16 and self.backbone.config.model_type in NOT_IN_FLOAT16:
            raise ValueError(f"a {type(self.backbone).__name__} gives NaN in float16; load it in bfloat16 or float32.")
        whole = [-(-side // self.patch) * self.patch for side in pixel_values.shape[-2:]]
        if whole != list(pixel_values.shape[-2:]):
            pixel_values = resize(pixel_values, torch.Size(whole))
        maps = list(self.backbone.forward_with_filtered_kwargs(pixel_values).feature_maps)
        shapes = [tuple(x.shape) for x in maps]
        if any(len(s) != 4 for s in shapes) or [s[1] for s in shapes] != self.declared:
            given = f"{type(self.backbone).__name__} declares channels {self.declared}, its maps have shapes {shapes}"
            raise ValueError(f"{given}; expected maps (B, C, h, w) of these, as of swin or convnext. Choose another.")
        return self.adapter(maps) if self.adapter is not None else maps


class StudentDecoder(nn.Module):
    """All stages at stride 4, concatenated and projected; a light head per task (the baseline of the paper).

    The 1x1 projection of the concatenation is computed stage by stage *before* upsampling: a linear map over channels and
    bilinear interpolation commute, so the result is the same and the cost up to 64 times smaller.
    """

    def __init__(self, channels: list[int], config: KdamStudentConfig) -> None:
        super().__init__()
        width, head = config.decoder_channels, config.head_channels
        self.project = nn.ModuleList([nn.Conv2d(c, width, 1, bias=False) for c in channels])
        self.norm = nn.BatchNorm2d(width)
        self.heads = nn.ModuleDict()
        for task in config.tasks or []:
            self.heads[task["name"]] = nn.Sequential(HEADS[config.head](width, head), Predictor(head, task["channels"]))

    def forward(self, maps: list[Tensor], size: tuple[int, int], mask: Tensor | None) -> dict[str, Tensor]:
        """Four maps -> raw head outputs at `size`."""
        shared = sum(resize(project(x), size) for project, x in zip(self.project, maps, strict=True))
        shared = F.relu(self.norm(shared))
        return {name: head(shared) for name, head in self.heads.items()}


class CrossTaskAttention(nn.Module):
    """Every pixel of every task attends to the pooled tokens of all tasks, then to itself through an MLP (pre-norm).

    Keys and values are average-pooled to a fixed grid per task, without padding: cost and memory are linear in the number
    of pixels.
    """

    def __init__(self, channels: int, heads: int, grid: int, tasks: int) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.task_embedding = nn.Parameter(torch.zeros(tasks, channels))
        self.norm_attention = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x_BTDhw: Tensor, mask_B1hw: Tensor | None) -> Tensor:
        """(B, T, D, h, w) -> the same shape."""
        B, T, D, h, w = x_BTDhw.shape
        x = x_BTDhw.flatten(3).transpose(2, 3) + self.task_embedding[:, None]  # B T N D
        y = self.norm_attention(x)
        tokens, alive = self._pool(y.transpose(2, 3).reshape(B, T * D, h, w), mask_B1hw, T)
        q = self.query(y).reshape(B, T * h * w, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(tokens).reshape(B, tokens.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=None if alive is None else alive[:, None, None, :])
        x = x + self.out(attended.transpose(1, 2).reshape(B, T, h * w, D))
        x = x + self.mlp(self.norm_mlp(x))
        return x.transpose(2, 3).reshape(B, T, D, h, w)

    def _pool(self, y: Tensor, mask: Tensor | None, T: int) -> tuple[Tensor, Tensor | None]:
        """Masked average over a grid: tokens (B, T*grid^2, D) and which of them hold any pixel (B, T*grid^2)."""
        B, TD = y.shape[:2]
        pooled, alive = F.adaptive_avg_pool2d(y if mask is None else y * mask, self.grid), None
        if mask is not None:
            share = F.adaptive_avg_pool2d(mask, self.grid)
            pooled, alive = pooled / share.clamp_min(1e-6), (share > 0).flatten(1).repeat(1, T)
        tokens = pooled.reshape(B, T, TD // T, self.grid**2).transpose(2, 3)
        return tokens.reshape(B, T * self.grid**2, TD // T), alive


class TeacherDecoder(nn.Module):
    """Tasks talk to each other at stride 16 by cross-task attention, then each is refined over strides 8 and 4."""

    def __init__(self, channels: list[int], config: KdamTeacherConfig) -> None:
        super().__init__()
        width, tasks = config.decoder_channels, config.tasks or []
        self.lateral = nn.ModuleList([conv_norm_act(c, width, 1) for c in channels])
        self.start = nn.ModuleList([conv_norm_act(width, width) for _ in tasks])
        block = (width, config.attention_heads, config.attention_grid, len(tasks))
        self.blocks = nn.ModuleList([CrossTaskAttention(*block) for _ in range(config.attention_layers)])
        self.refine8 = nn.ModuleList([conv_norm_act(width, width) for _ in tasks])
        self.refine4 = nn.ModuleList([conv_norm_act(width, width) for _ in tasks])
        self.heads = nn.ModuleDict()
        for task in tasks:
            self.heads[task["name"]] = nn.Sequential(conv_norm_act(width, width), Predictor(width, task["channels"]))

    def forward(self, maps: list[Tensor], size: tuple[int, int], mask: Tensor | None) -> dict[str, Tensor]:
        """Four maps -> raw head outputs at `size`; mask (B, 1, H, W) float is 0 on padding."""
        m4, m8, m16, m32 = (lateral(x) for lateral, x in zip(self.lateral, maps, strict=True))
        coarse = m16 + resize(m32, m16.shape[-2:])
        mask16 = None if mask is None else F.adaptive_avg_pool2d(mask, coarse.shape[-2:]).gt(0).to(coarse.dtype)
        x = torch.stack([start(coarse) for start in self.start], dim=1)
        for block in self.blocks:
            x = block(x, mask16)
        m4 = resize(m4, size)
        outputs = {}
        for k, (name, head) in enumerate(self.heads.items()):
            y = self.refine8[k](resize(x[:, k], m8.shape[-2:]) + m8)
            y = self.refine4[k](resize(y, size) + m4)
            outputs[name] = head(y)
        return outputs


class KdamPreTrainedModel(PreTrainedModel):
    """Weights, saving and the common forward pass of teacher and student."""

    config: KdamConfig
    base_model_prefix = "kdam"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules: list[str] = []  # noqa: RUF012
    _supports_sdpa = True  # the backbone is asked itself
    decoder_class: type[nn.Module]

    def __init__(self, config: KdamConfig) -> None:
        super().__init__(config)
        if not config.tasks:
            raise ValueError("config.tasks is empty; give at least one, such as [task.spec() for task in NYUD_V2].")
        self.encoder = PyramidEncoder(config)
        self.decoder = self.decoder_class(self.encoder.channels, config)
        self.activations = {task["name"]: task["activation"] for task in config.tasks}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Kaiming for the convolutions of decoders (post_init would leave them at N(0, initializer_range))."""
        super()._init_weights(module)
        if isinstance(module, Predictor):
            init.normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, CrossTaskAttention):
            init.normal_(module.task_embedding, std=self.config.initializer_range)

    @torch.no_grad()
    def start_at(self, predictions: Mapping[str, Sequence[float]]) -> None:
        """Let untrained heads predict `predictions` (task name -> one value per channel) wherever they look."""
        decoder: Any = self.decoder
        for name, values in predictions.items():
            bias = decoder.heads[name][-1].bias
            bias.copy_(bias.new_tensor(values) - bias.new_tensor(AT_ZERO[self.activations[name]]))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load a model as it was saved, completely or not at all.

        Args:
            pretrained_model_name_or_path: folder or Hub id with `config.json` and `model.safetensors`, or its shards.
            output_loading_info: return the library's record of the keys too.
            args, kwargs: as of the library.

        Raises:
            OSError: nothing there.
            ValueError: no or unreadable safetensors; weights that are missing, left over, of another shape or not finite; a
                config that cannot be meant. The library would warn and go on with random weights, or load a pickle.
        """
        name = pretrained_model_name_or_path
        if name is not None:
            find_weights(name, **{key: kwargs[key] for key in HUB_OPTIONS if key in kwargs})
        # weights of another shape are let through here to be named below
        always = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            model, info = super().from_pretrained(name, *args, **(kwargs | always))
        except SafetensorError as error:
            reason = f"{WEIGHTS} cannot be read ({error}): cut short, or no safetensors"
            raise ValueError(f"{name}: {reason}. Get the file again.") from error
        refuse_incomplete(name, info)
        refuse_non_finite(name, model.state_dict())
        return (model, info) if output_loading_info else model

    def get_input_embeddings(self) -> None:
        """There is none; quantisation asks for it."""

    get_output_embeddings = get_input_embeddings

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save with the keys of `state_dict()`.

        The library's default writes the keys of the original checkpoints for some backbones (swin, dinov2, ...), which
        `Trainer` then silently fails to load on resume (transformers #43701, #48805).
        """
        return super().save_pretrained(save_directory, *args, **({"save_original_format": False} | kwargs))

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: Mapping[str, Tensor] | None = None,
        output_hidden_states: bool = False,
        **kwargs: Any,
    ) -> KdamOutput:
        """Predict all tasks.

        Args:
            pixel_values: (B, 3, H, W) float, normalised with the config's mean and std; any H, W; computed in the model's
                dtype.
            pixel_mask: (B, H, W) bool, False on padding; optional.
            labels: task name -> (B, ..., H, W) as `dataset_loaders.Collator` makes them, for the supervised loss that
                `kdam_hf.objective` trains with.
            output_hidden_states: return the maps of the backbone too.
            kwargs: not used; what a batch holds beside.

        Returns:
            `KdamOutput` with float32 `predictions`, whatever the dtype of the model, and the `loss` of labels.

        Raises:
            ValueError: images of another shape, labels that do not fit, or labels where kdam_hf was not imported.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values has shape {tuple(pixel_values.shape)}; expected (B, 3, H, W).")
        decoder: Any = self.decoder
        # not self.dtype: replicas of DataParallel have no parameters
        pixel_values = pixel_values.to(next(iter(decoder.heads.values()))[-1].weight.dtype)
        H, W = pixel_values.shape[-2:]
        pad = (0, -W % SIZE_DIVISOR, 0, -H % SIZE_DIVISOR)
        if pixel_mask is None and any(pad):
            pixel_mask = pixel_values.new_ones(len(pixel_values), H, W, dtype=torch.bool)
        mask = None if pixel_mask is None else F.pad(pixel_mask[:, None].to(pixel_values.dtype), pad)
        maps = self.encoder(F.pad(pixel_values, pad, mode="replicate"))
        size = ((H + pad[3]) // STRIDE, (W + pad[1]) // STRIDE)
        raw = self.decoder(maps, size, mask)
        # not -(-H // STRIDE): ONNX divides towards zero
        h, w = (H + STRIDE - 1) // STRIDE, (W + STRIDE - 1) // STRIDE
        predictions = {name: ACTIVATIONS[self.activations[name]](y[..., :h, :w].float()) for name, y in raw.items()}
        loss = None if labels is None else self._loss(predictions, labels, pixel_mask)
        return KdamOutput(loss, predictions, tuple(maps) if output_hidden_states else None)

    def _loss(self, predictions: Mapping[str, Tensor], labels: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
        """By the function that the package has made known to the library; a model alone has no losses."""
        if self.loss_type != type(self).__name__:
            raise ValueError("labels were given, but a model's code has no losses: import kdam_hf before it is made.")
        loss: Tensor = self.loss_function(predictions, labels, mask, self.config.tasks)
        return loss


class KdamTeacher(KdamPreTrainedModel):
    """A strong multi-task model: backbone, cross-task attention at stride 16, refinement to stride 4."""

    config: KdamTeacherConfig
    config_class = KdamTeacherConfig
    decoder_class = TeacherDecoder


class KdamStudent(KdamPreTrainedModel):
    """A small multi-task model: backbone, concatenated stages, a light head per task."""

    config: KdamStudentConfig
    config_class = KdamStudentConfig
    decoder_class = StudentDecoder
