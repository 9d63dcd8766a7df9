#!/usr/bin/env python3
"""Asks chiasm and transformers the same about one picture and compares (a reference tool, not a test).

usage: check_answers.py CHIASM CHECKPOINT PICTURE QUESTION [MAX_TOKENS]

Both work in float32 on the checkpoint's weights. Prints whether the prompt ids and the greedy tokens are the same, the
largest difference of log-probabilities, and by how much each chosen token led (a lead near the difference means that the
choice was a coin's toss). Needs torch, transformers, tokenizers, pillow.
"""
import json
import subprocess
import sys

import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from tokenizers import Tokenizer


def main():
    if len(sys.argv) not in (5, 6):
        raise SystemExit(__doc__)
    program, checkpoint, picture, question = sys.argv[1:5]
    count = sys.argv[5] if len(sys.argv) == 6 else "12"
    ours = json.loads(subprocess.run(
        [program, "ask", "-m", checkpoint, "-i", picture, question, "--max-tokens", count, "--temperature", "0",
         "--repetition-penalty", "1", "--logprobs", "2", "--features", "none", "--json"], check=True, capture_output=True).stdout)
    answer = ours["answers"][0]

    p = json.load(open(checkpoint + "/preprocessor_config.json"))
    keys = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
    x = Qwen2VLImageProcessorPil(**{k: p[k] for k in keys})(images=[Image.open(picture).convert("RGB")], return_tensors="pt")
    tokenizer = Tokenizer.from_file(checkpoint + "/tokenizer.json")
    rows = int(x["image_grid_thw"].prod()) // p["merge_size"] ** 2
    text = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * rows +
            f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n")
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
    print(f"grid_thw {ours['images'][0]['grid_thw']} and {x['image_grid_thw'][0].tolist()}; "
          f"prompt tokens {answer['prompt_tokens']} and {ids.shape[1]}")
    model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa").eval()
    same, worst = 0, 0.0
    with torch.inference_mode():
        features = model.model.visual(x["pixel_values"], grid_thw=x["image_grid_thw"]).pooler_output
        for step, got in enumerate(answer["logprobs"]):
            kinds = (ids == model.config.image_token_id).int()
            positions, _ = model.model.get_rope_index(ids, kinds, x["image_grid_thw"], None, torch.ones_like(ids))
            embeds = model.model.language_model.embed_tokens(ids)
            embeds = embeds.masked_scatter((kinds == 1).unsqueeze(-1), features)
            hidden = model.model.language_model(inputs_embeds=embeds, position_ids=positions).last_hidden_state[:, -1:]
            logprobs = model.lm_head(hidden)[0, 0].log_softmax(-1)
            best = logprobs.topk(2)
            worst = max(worst, abs(float(logprobs[got["id"]]) - got["logprob"]))
            lead = float(best.values[0] - best.values[1])
            if int(best.indices[0]) != got["id"]:
                print(f"token {step}: {got['id']} here, {int(best.indices[0])} there; it leads by {lead:.2e}")
                break
            same += 1
            ids = torch.cat([ids, torch.tensor([[got["id"]]])], 1)
    print(f"{same} of {len(answer['logprobs'])} greedy tokens the same; log-probabilities differ by at most {worst:.2e}")


if __name__ == "__main__":
    main()
