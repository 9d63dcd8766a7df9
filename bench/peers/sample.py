"""Running one program once and reading its figures: what every engine of the comparison has in common.

A sample is a dict; what an engine does not tell is absent. Keys: encode_ms (picture file to features, all that belongs
to it), prefill_tokens and prefill_ms, decode_tokens and decode_ms, peak_mib (the process's own peak of resident memory),
next_ttft_ms (first token of the next question on the same picture, asked of a running server).
"""
import json
import os
import re
import subprocess
import tempfile
import threading


class Skipped(Exception):
    """Why an engine cannot be measured here; the run goes on without it."""


def run_measured(command, env=None, timeout=900):
    """(what it printed, its peak of resident memory in MiB). Skipped where it fails, with its last line."""
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        process = subprocess.Popen([str(word) for word in command], stdout=printed, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        timer = None
        try:
            timer = threading.Timer(timeout, process.kill)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            if timer:
                timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode != 0:
        lines = [line for line in text.splitlines() if line.strip()] or ["it printed nothing"]
        raise Skipped(f"{os.path.basename(str(command[0]))} ended with code {process.returncode}: {lines[-1][:300]}")
    return text, usage.ru_maxrss / 1024


def of_chiasm_ask(text):
    """The sample in what `chiasm ask --json` prints for one picture and one question."""
    answer = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    (seen,), (said,) = answer["images"], answer["answers"]
    if seen["source"] != "encoded":
        raise Skipped(f"the picture was not encoded but came from {seen['source']}")
    out = {"encode_ms": seen["encode_ms"], "prefill_tokens": said["prompt_tokens"] - said["cached_tokens"], "prefill_ms": said["prefill_ms"],
           "picture_tokens": seen["rows"]}
    if len(said["token_ids"]) > 1:  # the first token belongs to the prefill
        out |= {"decode_tokens": len(said["token_ids"]) - 1, "decode_ms": said["decode_ms"]}
    return out


def of_mtmd(text):
    """The sample in what llama-mtmd-cli prints, of llama.cpp and of ik_llama.cpp. Its prefill is of the picture's rows alone."""
    out = {}
    encoded = re.findall(r"mtmd batch encoding done in (\d+) ms", text) or re.findall(r"image slice encoded in (\d+) ms", text)
    if encoded:
        out["encode_ms"] = float(sum(map(int, encoded)))
    decoded = re.findall(r"image decoded \(batch \d+/\d+\) in (\d+) ms", text)
    rows = re.findall(r"decoding image batch \d+/\d+, n_tokens_batch = (\d+)", text)
    if decoded and rows:
        out |= {"prefill_tokens": sum(map(int, rows)), "prefill_ms": float(sum(map(int, decoded)))}
    for ms, runs in re.findall(r"(?<!prompt )eval time = +([\d.]+) ms / +(\d+) runs", text):
        out |= {"decode_tokens": int(runs), "decode_ms": float(ms)}
    if not out:
        raise Skipped("llama-mtmd-cli printed no times")
    return out


def of_json_line(text):
    """The sample that a driver in an environment of its own prints as its last line."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Skipped("the driver printed no figures")
