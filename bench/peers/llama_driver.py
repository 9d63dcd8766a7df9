"""llama.cpp by the libraries of the package llama-cpp-py-sync (AVX2, no build): encode, prefill, decode.

usage: llama_driver.py CHECKPOINT PICTURE QUESTION TOKENS THREADS LANGUAGE.gguf VISION.gguf
       llama_driver.py --check

The same calls as llama.cpp's own llama-mtmd-cli makes, with a clock around each: the picture's preparation and encode,
then the prompt (text, picture, text), then greedy tokens. Prints a sample (see sample.py) as JSON.
"""
import json
import sys
import time

import numpy as np
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib, get_mtmd_lib
from PIL import Image


def main():
    _, picture, question, tokens, threads, language, vision = sys.argv[1:8]
    ffi, lib, mtmd = get_ffi(), get_lib(), get_mtmd_lib()
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(language.encode(), lib.llama_model_default_params())
    wanted = lib.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = 2048
    wanted.n_threads = wanted.n_threads_batch = int(threads)
    context = lib.llama_init_from_model(model, wanted)
    options = mtmd.mtmd_context_params_default()
    options.use_gpu, options.print_timings, options.n_threads = False, False, int(threads)
    eyes = mtmd.mtmd_init_from_file(vision.encode(), model, options)
    if not (model and context and eyes):
        sys.exit("llama.cpp could not load its files")
    vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))

    def one(token):
        place = ffi.new("llama_token[1]", [token])
        if lib.llama_decode(context, lib.llama_batch_get_one(place, 1)) != 0:
            sys.exit("llama.cpp: decode failed")
        lib.llama_synchronize(context)
        return int(np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(context, -1), 4 * vocabulary), np.float32).argmax())
    one(0)  # its weights are mapped in, its buffers made
    lib.llama_memory_clear(lib.llama_get_memory(context), True)

    pixels = Image.open(picture).convert("RGB")
    bitmap = mtmd.mtmd_bitmap_init(pixels.width, pixels.height, pixels.tobytes())
    marker = ffi.string(mtmd.mtmd_default_marker()).decode()
    text = f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{marker}{question}<|im_end|>\n<|im_start|>assistant\n".encode()
    kept = ffi.new("char[]", text)
    told = ffi.new("struct mtmd_input_text *", {"text": kept, "text_len": len(text), "add_special": False, "parse_special": True})
    chunks = mtmd.mtmd_input_chunks_init()
    begin = time.perf_counter()
    if mtmd.mtmd_tokenize(eyes, chunks, told, [bitmap], 1) != 0:
        sys.exit("llama.cpp: the prompt cannot be tokenized")
    encode, prefill, rows = time.perf_counter() - begin, 0.0, 0
    past, count = ffi.new("llama_pos *", 0), mtmd.mtmd_input_chunks_size(chunks)
    length = 0
    for i in range(count):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        length += mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        begin = time.perf_counter()
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            failed = mtmd.mtmd_encode_chunk(eyes, chunk)
            encode += time.perf_counter() - begin
            begin = time.perf_counter()
            failed = failed or mtmd.mtmd_helper_decode_image_chunk(eyes, context, chunk, mtmd.mtmd_get_output_embd(eyes), past[0], 0, 2048, past, ffi.NULL, ffi.NULL)
        else:
            failed = mtmd.mtmd_helper_eval_chunk_single(eyes, context, chunk, past[0], 0, 2048, i == count - 1, past)
        lib.llama_synchronize(context)
        prefill += time.perf_counter() - begin
        if failed:
            sys.exit("llama.cpp: a part of the prompt failed")
    token = int(np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(context, -1), 4 * vocabulary), np.float32).argmax())
    begin = time.perf_counter()
    for _ in range(int(tokens) - 1):
        token = one(token)
    decode = time.perf_counter() - begin
    print(json.dumps(dict(encode_ms=1e3 * encode, prefill_tokens=length, prefill_ms=1e3 * prefill, decode_tokens=int(tokens) - 1, decode_ms=1e3 * decode, picture_tokens=rows)))


if sys.argv[1] != "--check":
    main()
