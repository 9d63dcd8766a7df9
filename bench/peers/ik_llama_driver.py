"""ik_llama.cpp's language model by the package ik-llama-cpp-python (AVX2, no build): prefill and decode.

usage: ik_llama_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS LANGUAGE.gguf PROMPT_TOKENS
       ik_llama_driver.py --check

The package has no vision part, so the prompt is PROMPT_TOKENS text tokens: the same arithmetic as the picture's prompt
but for looking tokens up. Encode is absent from the sample; a build of ik_llama.cpp tells it (--ik-llama-cpp).
"""
import ctypes
import json
import sys
import time

import numpy as np
from ik_llama_cpp import _ctypes_api as C
from ik_llama_cpp._internals import IkContext, IkModel, make_batch_range


def main():
    _, _, _, tokens, threads, language, length = sys.argv[1:8]
    model = IkModel(language)
    context = IkContext(model, n_ctx=2048, n_threads=int(threads))

    def run(ids, past):
        batch = make_batch_range(ids, pos_start=past)
        failed = context.decode(batch)
        logits = context.get_logits(len(ids) - 1)
        C.llama_batch_free(batch)
        if failed:
            sys.exit("ik_llama.cpp: decode failed")
        return int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (model.n_vocab,)).argmax())
    run([1], 0)
    context.kv_cache_clear()
    length = int(length)
    begin = time.perf_counter()
    token = run([(i * 7919) % 800 for i in range(length)], 0)
    prefill = time.perf_counter() - begin
    begin = time.perf_counter()
    for i in range(int(tokens) - 1):
        token = run([token], length + i)
    decode = time.perf_counter() - begin
    print(json.dumps(dict(prefill_tokens=length, prefill_ms=1e3 * prefill, decode_tokens=int(tokens) - 1, decode_ms=1e3 * decode)))


if sys.argv[1] != "--check":
    main()
