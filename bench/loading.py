#!/usr/bin/env python3
"""From start to the first answer, minus the arithmetic: what loading a checkpoint from the page cache costs.

usage: loading.py [-m CHECKPOINT] [--rounds N] [--json FILE]

Each round, in processes of their own: `chiasm ask` on a new picture and on one that is kept on disk, and `chiasm serve`
from its start to "ready" and to its first answer on the known picture. What is left of the wall time after the reported
encode, prefill and decode is loading. Before the rounds everything is read once, so the files are in the page cache and
the vision digest is known. Standard library only.

examples:
  bench/loading.py                                    the demo model
  bench/loading.py -m build/bench/2b-full --rounds 5
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent / "serve")]
import figures  # noqa: E402
from client import Client  # noqa: E402
from figures import ROOT  # noqa: E402
from plan import Planned  # noqa: E402


def ask(options, home, *more):
    """(wall ms, arithmetic ms, source of the picture) of one `chiasm ask`."""
    begin = time.monotonic()
    done = subprocess.run([str(options.programs / "chiasm"), "ask", "-m", str(options.model), "-i", str(options.picture), "--device", "cpu", "--json",
                           "--max-tokens", "2", *options.option, *more, "--", "Day or night?"],
                          stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": home})
    wall = 1e3 * (time.monotonic() - begin)
    if done.returncode != 0:
        sys.exit(f"loading: chiasm ask ended with code {done.returncode}; its message stands above")
    answer = json.loads(done.stdout)
    (seen,), (said,) = answer["images"], answer["answers"]
    encode = seen.get("encode_ms", 0) if seen["source"] == "encoded" else 0
    return wall, encode + said["prefill_ms"] + said["decode_ms"], seen["source"]


def serve(options, home):
    """(ms to "ready", ms from there to the first token on a new picture, the same on a known picture)."""
    begin = time.monotonic()
    process = subprocess.Popen([str(options.programs / "chiasm"), "serve", "-m", str(options.model), "--listen", "127.0.0.1:0", "--device", "cpu", "--log-level", "error",
                                *options.option], stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": home})
    try:
        url = None
        for line in process.stdout:
            if line.startswith("listening on "):
                url = line.removeprefix("listening on ").strip()
            if line.strip() == "ready":
                break
        else:
            sys.exit("loading: chiasm serve ended before it was ready; its message stands above")
        ready = time.monotonic()
        client = Client(url, None)
        client.model = json.loads(client.get("/v1/models")[1])["data"][0]["id"]
        answers = [client.ask(Planned(0, (7,), f"Day or night? ({i})", 2), time.monotonic()) for i in range(2)]
        if not all(a.ok for a in answers):
            sys.exit(f"loading: the server did not answer: {answers[0].error or answers[1].error}")
        return 1e3 * (ready - begin), 1e3 * answers[0].ttft, 1e3 * answers[1].ttft
    finally:
        process.terminate()
        process.wait(60)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    a.add_argument("-m", "--model", type=pathlib.Path, default=ROOT / "models/toytown")
    a.add_argument("--picture", type=pathlib.Path, default=ROOT / "models/toytown/eval/scene-16.png")
    a.add_argument("--programs", type=pathlib.Path, default=ROOT / "build/release/bin")
    a.add_argument("--option", action="append", default=[], metavar="WORD", help="one more word for both commands, as --option=--precision --option=int8")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--json", type=pathlib.Path)
    options = a.parse_args()
    if not (options.model / "config.json").exists():
        a.error(f"{options.model} is no checkpoint folder: name one with -m")
    names = ["chiasm ask, a new picture", "chiasm ask, a picture known from disk"]
    samples = {name: [] for name in names}
    samples["chiasm serve, start to ready"] = []
    samples["chiasm serve, start to first token on a picture known from disk"] = []
    with tempfile.TemporaryDirectory(prefix="chiasm-loading-") as home:
        print("loading: reading everything once", file=sys.stderr, flush=True)
        ask(options, home)   # keeps the picture's features
        serve(options, home)
        for number in range(options.rounds):
            print(f"loading: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for name, more in zip(names, (["--features", "none"], [])):
                wall, arithmetic, source = ask(options, home, *more)
                assert (source == "encoded") == (name == names[0]), f"the picture came from {source}"
                samples[name].append({"wall_ms": wall, "arithmetic_ms": arithmetic, "rest_ms": wall - arithmetic})
            to_ready, first, second = serve(options, home)
            samples["chiasm serve, start to ready"].append({"wall_ms": to_ready, "rest_ms": to_ready})
            # Its first answer and the next on the same picture do the same kind of work but for the picture's prefill.
            samples["chiasm serve, start to first token on a picture known from disk"].append({"wall_ms": to_ready + first, "next_ms": second})
    rows = []
    for name, own in samples.items():
        rows.append([name, *[figures.number(figures.median([s[k] for s in own if k in s]) if any(k in s for s in own) else None) for k in ("wall_ms", "arithmetic_ms", "rest_ms")]])
    print(figures.table(["ms, medians", "start to answer", "arithmetic", "loading and the rest"], rows))
    if options.json:
        figures.write_json(options.json, {**figures.where(), "checkpoint": options.model.name, "rounds": options.rounds, "samples": samples})


if __name__ == "__main__":
    main()
