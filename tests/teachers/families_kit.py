"""The smallest model of each family that can teach: random weights, its real image processor, saved as on the Hub."""

import json
import string

import torch
import transformers as t

CLASSES = ("wall", "floor", "chair", "ceiling")
NAMES = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: k for k, name in enumerate(CLASSES)}}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
VIT = {**SMALL, "intermediate_size": 32, "image_size": 64, "patch_size": 16}
DINO = {**SMALL, "image_size": 56, "patch_size": 14}
MIT = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
SQUARE = {"height": 64, "width": 96}


def dinov2():
    return t.Dinov2Config(**DINO, out_features=STAGES, reshape_hidden_states=False)


def segformer():
    model = t.SegformerForSemanticSegmentation(t.SegformerConfig(**MIT, **NAMES))
    return model, t.SegformerImageProcessorPil(size=SQUARE)


def mobilevit():
    config = t.MobileViTConfig(hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8] * 7, aspp_out_channels=8, **NAMES)
    processor = t.MobileViTImageProcessorPil(size={"shortest_edge": 64}, crop_size=SQUARE)
    return t.MobileViTForSemanticSegmentation(config), processor


def beit(config, head):
    settings = {**VIT, "out_indices": [1, 2, 3, 4], "use_relative_position_bias": True, "use_auxiliary_head": False}
    square = {"height": 64, "width": 64}
    return head(config(**settings, **NAMES)), t.BeitImageProcessorPil(size=square, crop_size=square)


def mobilenet():
    config = t.MobileNetV2Config(depth_multiplier=0.35, finegrained_output=False, output_stride=16, **NAMES)
    processor = t.MobileNetV2ImageProcessorPil(size={"shortest_edge": 65}, crop_size={"height": 65, "width": 65})
    return t.MobileNetV2ForSemanticSegmentation(config), processor


def mobilevit2():
    config = t.MobileViTV2Config(width_multiplier=0.25, aspp_out_channels=8, **NAMES)
    return t.MobileViTV2ForSemanticSegmentation(config), mobilevit()[1]


def sapiens():
    head = {"upsample_out_channels": [8, 8], "conv_out_channels": [8]}
    config = t.Sapiens2Config(
        **SMALL, intermediate_size=32, num_key_value_attention_heads=1, patch_size=16, image_size=[64, 48],
        num_register_tokens=2, head_config=head, **NAMES,
    )  # fmt: skip
    stated = {"image_processor_type": "Sapiens2ImageProcessor", "do_resize": True, "size": {"height": 64, "width": 48}}
    stated |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_pad": True}
    return t.Sapiens2ForSemanticSegmentation(config), stated | {"image_mean": [0.5] * 3, "image_std": [0.2] * 3}


def dpt_dinov2():
    config = t.DPTConfig(
        backbone_config=dinov2(), neck_hidden_sizes=[8] * 4, fusion_hidden_size=256, use_bias_in_fusion_residual=False,
        add_projection=True,
    )  # fmt: skip
    colours = {"image_mean": (123.7, 116.3, 103.5), "image_std": (58.4, 57.1, 57.4)}
    processor = t.DPTImageProcessorPil(do_resize=False, do_rescale=False, do_pad=True, size_divisor=14, **colours)
    return t.DPTForDepthEstimation(config), processor


def dpt(head, **names):
    sizes = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    config = t.DPTConfig(**VIT, **sizes, **names)
    return head(config), t.DPTImageProcessorPil(size={"height": 64, "width": 64})


def depth_anything(kind, most):
    config = t.DepthAnythingConfig(
        backbone_config=dinov2(), patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        head_hidden_size=4, depth_estimation_type=kind, max_depth=most,
    )  # fmt: skip
    processor = t.DPTImageProcessorPil(size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14)
    return t.DepthAnythingForDepthEstimation(config), processor


def zoedepth():
    backbone = t.BeitConfig(**VIT, out_features=STAGES, reshape_hidden_states=False, use_relative_position_bias=True)
    config = t.ZoeDepthConfig(
        backbone_config=backbone, backbone_hidden_size=16, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8, num_attractors=[2] * 4, readout_type="project",
    )  # fmt: skip
    return t.ZoeDepthForDepthEstimation(config), t.ZoeDepthImageProcessorPil(size={"height": 64, "width": 64})


def zoedepth_of_two_ranges():
    model, processor = zoedepth()
    ranges = [
        {"name": name, "n_bins": 16, "min_depth": 0.001, "max_depth": most} for name, most in (("in", 10), ("out", 80))
    ]
    sizes = {"patch_transformer_hidden_size": 128, "patch_transformer_intermediate_size": 16}
    sizes["patch_transformer_num_attention_heads"] = 2
    given = model.config.to_dict() | sizes | {"bin_configurations": ranges, "num_patch_transformer_layers": 4}
    return t.ZoeDepthForDepthEstimation(t.ZoeDepthConfig(**given)), processor


def glpn():
    return t.GLPNForDepthEstimation(t.GLPNConfig(**MIT)), t.GLPNImageProcessorPil()


def swin():
    return t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2, out_features=STAGES
    )


def mask2former():
    config = t.Mask2FormerConfig(
        backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8,
        encoder_layers=1, decoder_layers=2, num_attention_heads=1, dim_feedforward=8, num_queries=5, **NAMES,
    )  # fmt: skip
    processor = t.Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32)
    return t.Mask2FormerForUniversalSegmentation(config), processor


def maskformer():
    decoder = t.DetrConfig(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8, encoder_attention_heads=1,
        decoder_attention_heads=1, num_queries=5,
    )  # fmt: skip
    config = t.MaskFormerConfig(
        backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, **NAMES
    )
    processor = t.MaskFormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}, size_divisor=32)
    return t.MaskFormerForInstanceSegmentation(config), processor


def eomt(config=t.EomtConfig, head=t.EomtForUniversalSegmentation):
    sizes = {"image_size": 64, "patch_size": 16, "num_upscale_blocks": 1, "num_blocks": 1, "num_queries": 5}
    processor = t.EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_split_image=True)
    return head(config(**SMALL, **sizes, **NAMES)), processor


def upernet():
    config = t.UperNetConfig(
        backbone_config=swin(), hidden_size=8, pool_scales=[1, 2], use_auxiliary_head=False, **NAMES
    )
    return t.UperNetForSemanticSegmentation(config), t.SegformerImageProcessorPil(size=SQUARE)


def normals():
    model, stated = tipsv2()
    return t.Tipsv2DptForNormalEstimation(model.config), stated


def oneformer():
    config = t.OneFormerConfig(
        backbone_config=swin(), num_queries=5, hidden_dim=32, encoder_feedforward_dim=8, dim_feedforward=8, encoder_layers=1,
        decoder_layers=2, num_attention_heads=1, conv_dim=32, mask_dim=32, query_dec_layers=1, task_seq_len=77, max_seq_len=16,
        text_encoder_context_length=16, text_encoder_width=16, text_encoder_num_layers=1, text_encoder_vocab_size=64,
        is_training=False, **NAMES,
    )  # fmt: skip
    processor = t.OneFormerImageProcessorPil(
        size={"shortest_edge": 64, "longest_edge": 128}, num_text=2, repo_path=None, class_info_file=None,
        metadata={"class_names": list(CLASSES), "thing_ids": [2]},
    )  # fmt: skip
    return t.OneFormerForUniversalSegmentation(config), processor


def tipsv2():
    maps = {"out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": False}
    backbone = t.AutoConfig.for_model("tipsv2_vision_model", **VIT, **maps)
    sizes = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "num_depth_bins": 16}
    stated = {"image_processor_type": "Tipsv2DptImageProcessor", "do_resize": True, "size": {"height": 64, "width": 64}}
    stated |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False}
    return t.Tipsv2DptForDensePrediction(t.Tipsv2DptConfig(backbone_config=backbone, **sizes, **NAMES)), stated


# whose processor needs torchvision; what it would save is read as data
NEEDS_TORCHVISION = ("normals", "tipsv2", "sapiens2")
FAMILIES = {
    "beit": lambda: beit(t.BeitConfig, t.BeitForSemanticSegmentation),
    "data2vec": lambda: beit(t.Data2VecVisionConfig, t.Data2VecVisionForSemanticSegmentation),
    "mobilenetv2": mobilenet,
    "mobilevitv2": mobilevit2,
    "sapiens2": sapiens,
    "eomt-dinov3": lambda: eomt(t.EomtDinov3Config, t.EomtDinov3ForUniversalSegmentation),
    "dpt-dinov2": dpt_dinov2,
    "zoedepth-two-ranges": zoedepth_of_two_ranges,
    "segformer": segformer,
    "mobilevit": mobilevit,
    "dpt": lambda: dpt(t.DPTForSemanticSegmentation, **NAMES),
    "dpt-depth": lambda: dpt(t.DPTForDepthEstimation),
    "depth-anything-metric": lambda: depth_anything("metric", 20),
    "depth-anything": lambda: depth_anything("relative", 1),
    "zoedepth": zoedepth,
    "glpn": glpn,
    "mask2former": mask2former,
    "maskformer": maskformer,
    "eomt": eomt,
    "upernet": upernet,
    "normals": normals,
    "oneformer": oneformer,
    "tipsv2": tipsv2,
}


def save(name, folder):
    """The folder of a family's smallest model."""
    torch.manual_seed(0)
    model, processor = FAMILIES[name]()
    for parameter in model.parameters():  # what is freshly made predicts nearly the same everywhere
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.8 if name == "mobilevit" else 0.1)
    model.save_pretrained(folder)
    if isinstance(processor, dict):
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    else:
        processor.save_pretrained(folder)
    if name == "oneformer":
        letters = (*string.ascii_lowercase, *(f"{x}</w>" for x in string.ascii_lowercase))
        pieces = ["<|startoftext|>", "<|endoftext|>", *letters]
        t.CLIPTokenizer(vocab={piece: k for k, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)
    return folder
