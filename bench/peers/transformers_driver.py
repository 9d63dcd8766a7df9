"""transformers on the CPU: encode, prefill and decode of one picture and one question, timed one after the other.

usage: transformers_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS DTYPE      DTYPE: float32 or bfloat16
       transformers_driver.py --check                                           only whether it can run

Runs in build/peers/transformers; prints a sample (see sample.py) as JSON. The vision encoder and the language model are
called as the model's own forward does, each after one short call that does not count.
"""
import json
import sys
import time

import torch
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from PIL import Image


def clock(body):
    begin = time.perf_counter()
    out = body()
    return out, 1e3 * (time.perf_counter() - begin)


@torch.inference_mode()
def main():
    folder, picture, question, tokens, threads, dtype = sys.argv[1:7]
    torch.set_num_threads(int(threads))
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = Qwen2VLImageProcessorPil.from_pretrained(folder)

    def look(image):
        seen = processor(images=[image], return_tensors="pt")
        out = model.model.visual(seen["pixel_values"].to(model.dtype), grid_thw=seen["image_grid_thw"])
        for name in ("pooler_output", "last_hidden_state"):
            if not torch.is_tensor(out) and getattr(out, name, None) is not None:
                out = getattr(out, name)
        return out, seen["image_grid_thw"]
    look(Image.new("RGB", (56, 56)))
    model(input_ids=torch.arange(8)[None], use_cache=True, logits_to_keep=1)

    (features, grid), encode_ms = clock(lambda: look(Image.open(picture).convert("RGB")))
    rows = features.shape[0]
    text = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * rows}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor(tokenizer(text)["input_ids"])[None]
    places = ids[0] == model.config.image_token_id
    embeds = model.get_input_embeddings()(ids)
    embeds[0, places] = features.to(embeds.dtype)
    types = places.to(torch.int)[None]
    positions, delta = model.model.get_rope_index(ids, types, image_grid_thw=grid) if "mm_token_type_ids" in model.model.get_rope_index.__code__.co_varnames else model.model.get_rope_index(ids, grid)
    out, prefill_ms = clock(lambda: model(inputs_embeds=embeds, position_ids=positions, use_cache=True, logits_to_keep=1))
    count, cache, length = int(tokens) - 1, out.past_key_values, ids.shape[1]
    begin = time.perf_counter()
    for i in range(count):
        position = (length + i + delta).view(1, 1, 1).expand(3, 1, 1)
        out = model(input_ids=out.logits[:, -1].argmax(-1)[:, None], position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1)
    decode_ms = 1e3 * (time.perf_counter() - begin)
    print(json.dumps(dict(encode_ms=encode_ms, prefill_tokens=length, prefill_ms=prefill_ms, decode_tokens=count, decode_ms=decode_ms, picture_tokens=rows)))


if sys.argv[1] != "--check":
    main()
