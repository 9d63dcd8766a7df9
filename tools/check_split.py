#!/usr/bin/env python3
"""Compares a feature file with the vision half of a checkpoint as transformers computes it (a reference tool, not a test).

usage: check_split.py CHECKPOINT PICTURE FEATURE_FILE

Loads nothing but the tensors under `visual.`, encodes the picture in float32 through the PIL image processor, and prints
the relative L2 distance from the tensor `image_embeds` of the feature file. Needs torch, transformers, safetensors, pillow.
"""
import glob
import json
import sys

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel


def vision_model(checkpoint):
    config = AutoConfig.from_pretrained(checkpoint)
    model = Qwen2VisionTransformerPretrainedModel._from_config(config.vision_config).float().eval()
    weights = {}
    for path in sorted(glob.glob(checkpoint + "/*.safetensors")):
        with safe_open(path, "pt") as f:
            weights.update({n.removeprefix("visual."): f.get_tensor(n).float() for n in f.keys() if n.startswith("visual.")})
    model.load_state_dict(weights, strict=True)
    return model


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    checkpoint, picture, features = sys.argv[1:]
    p = json.load(open(checkpoint + "/preprocessor_config.json"))
    keys = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
    x = Qwen2VLImageProcessorPil(**{k: p[k] for k in keys})(images=[Image.open(picture).convert("RGB")], return_tensors="pt")
    with torch.inference_mode():
        want = vision_model(checkpoint)(x["pixel_values"], grid_thw=x["image_grid_thw"]).pooler_output
    got = load_file(features)["image_embeds"].float()
    if got.shape != want.shape:
        raise SystemExit(f"shape {list(got.shape)}, expected {list(want.shape)}")
    print(f"grid_thw {x['image_grid_thw'][0].tolist()} rows {len(want)} relative L2 {float((got - want).norm() / want.norm()):.3e}")


if __name__ == "__main__":
    main()
