#!/usr/bin/env python3
"""Writes a Qwen2-VL checkpoint as the two GGUF files that llama.cpp and its relatives read: language model and vision.

usage: gguf_weights.py CHECKPOINT OUT.gguf --part language|vision --type f16|q8_0

The weights are the checkpoint's, so every engine of the comparison computes with the same values. Quantised language
models are made by the peers' own llama-quantize from the F16 file; the vision file has no such tool, and its Q8_0 is
made by the gguf package, as the peers' own converter does it. Names and keys are those of that converter.
Needs the packages gguf and numpy. Exit code 0, or an exception.
"""
import argparse
import json
import pathlib
import struct

import gguf
import numpy as np

LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
BLOCK = {"norm1": "ln1", "norm2": "ln2", "attn.proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "visual.merger.ln_q.weight": "v.post_ln.weight",
    "visual.merger.ln_q.bias": "v.post_ln.bias", "visual.merger.mlp.0.weight": "mm.0.weight",
    "visual.merger.mlp.0.bias": "mm.0.bias", "visual.merger.mlp.2.weight": "mm.2.weight",
    "visual.merger.mlp.2.bias": "mm.2.bias",
}


def tensors(folder):
    """Yields (name, float32 array) of every BF16 tensor of the checkpoint."""
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        data = np.memmap(file, np.uint8, "r", 8 + length)
        for name, entry in header.items():
            assert entry["dtype"] == "BF16", f"{name}: expected BF16, got {entry['dtype']}"
            begin, end = entry["data_offsets"]
            words = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16
            yield name, words.view(np.float32).reshape(entry["shape"])


def renamed(name, values):
    """The peer's names of one tensor and its parts; () for what belongs to neither file."""
    if name in OUTSIDE:
        return [(OUTSIDE[name], values)]
    if name == "visual.patch_embed.proj.weight":  # its two frames are two tensors there
        return [("v.patch_embd.weight", values[:, :, 0]), ("v.patch_embd.weight.1", values[:, :, 1])]
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        layer, rest = stem.removeprefix("model.layers.").split(".", 1)
        return [(f"blk.{layer}.{LAYER[rest]}.{kind}", values)]
    block, rest = stem.removeprefix("visual.blocks.").split(".", 1)
    if rest == "attn.qkv":
        return [(f"v.blk.{block}.attn_{part}.{kind}", third) for part, third in zip("qkv", np.split(values, 3))]
    return [(f"v.blk.{block}.{BLOCK[rest]}.{kind}", values)]


def stored(name, values, type_name):
    """(array, type) as the file holds it: vectors in F32, matrices in the type, the patch embedding in F16 always."""
    if values.ndim == 1:
        return np.ascontiguousarray(values, np.float32), gguf.GGMLQuantizationType.F32
    if type_name == "f16" or name.startswith("v.patch_embd"):
        return np.ascontiguousarray(values).astype(np.float16), gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0


def language_keys(writer, folder, config):
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_sections(config["rope_scaling"]["mrope_section"] + [0])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    texts = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(texts)
    for text, token in tokenizer["model"]["vocab"].items():
        texts[token], types[token] = text, gguf.TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        texts[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_pad_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"])


def vision_keys(writer, folder, config):
    vision, pictures = config["vision_config"], json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("qwen2vl_merger")
    writer.add_vision_projection_dim(config["hidden_size"])
    writer.add_vision_image_size(560)
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["embed_dim"])
    writer.add_vision_feed_forward_length(int(vision["embed_dim"] * vision["mlp_ratio"]))
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean(pictures["image_mean"])
    writer.add_vision_image_std(pictures["image_std"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--part", choices=["language", "vision"], required=True)
    parser.add_argument("--type", choices=["f16", "q8_0"], default="f16")
    a = parser.parse_args()
    config = json.loads((a.checkpoint / "config.json").read_text(encoding="utf-8"))
    vision = a.part == "vision"
    unfinished = a.out.with_name(a.out.name + ".unfinished")
    writer = gguf.GGUFWriter(unfinished, "clip" if vision else "qwen2vl", use_temp_file=True)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if a.type == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_name("random")
    (vision_keys if vision else language_keys)(writer, a.checkpoint, config)
    for name, values in tensors(a.checkpoint):
        if name.startswith("visual.") != vision:
            continue
        for theirs, part in renamed(name, values):
            array, kind = stored(theirs, part, a.type)
            writer.add_tensor(theirs, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(a.out)  # a half-written file is never taken for a whole one


if __name__ == "__main__":
    main()
