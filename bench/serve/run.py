#!/usr/bin/env python3
"""Open-loop load on an OpenAI-compatible server with pictures: when each request is due is planned before the first is sent.

usage: run.py [-m MODEL | --url URL] [--scenario NAME ...] [--rate R | --load L] [--json FILE [--add]]

Latencies count from the moment a request was due, so a server that falls behind is not asked less. Without --rate the
rate is --load times what one request after the other reaches, measured first: a known and a new picture are asked about
alone. Standard library only.

examples:
  bench/serve/run.py                                                     the demo model in build/release/bin/chiasm
  bench/serve/run.py -m build/bench/2b-full --scenario one-picture
  bench/serve/run.py --server-option=--precision=int8 --json out.json --add      one more run in out.json
  bench/serve/run.py -m Qwen2-VL-2B-Instruct --server-option=--threads=8 --json load.json
  bench/serve/run.py --url http://localhost:9000 --model-name qwen --rate 0.5    any server, also somebody else's

exit code: 0; 1 where a request failed other than by an orderly refusal (429, 503); 2 for wrong usage.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import figures  # noqa: E402
import plan  # noqa: E402
from client import Client  # noqa: E402
from figures import ROOT, number, spread  # noqa: E402

ENCODED = ("chiasm_features_total", {"source": "encoded"})
ENCODING = "chiasm_encoder_busy_seconds_total"


def say(text):
    print(f"serve: {text}", file=sys.stderr, flush=True)


def send_all(client, planned):
    """Sends each request when it is due, whatever became of those before it; all outcomes in the plan's order."""
    bodies = [client.body(p) for p in planned]  # made before: the generator itself must not be late
    outcomes, threads = [None] * len(planned), []
    start = time.monotonic() + 0.05

    def one(i):
        outcomes[i] = client.ask(planned[i], start + planned[i].at, bodies[i])
    for i, p in enumerate(planned):
        time.sleep(max(0.0, start + p.at - time.monotonic()))
        threads.append(threading.Thread(target=one, args=(i,), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return start, outcomes


def summary(start, outcomes, goal):
    """The figures of one scenario; times in ms. `goal`: (TTFT, mean time of a token) in seconds that a good answer keeps."""
    own = [o for o in outcomes if not o.background]
    good = [o for o in own if o.ok]
    ended = max((o.last for o in good), default=start)
    within = [o for o in good if o.ttft <= goal[0] and (o.per_token or 0) <= goal[1]]

    def ms(values):
        return {k: v if k == "count" or v is None else 1e3 * v for k, v in spread(values).items()}
    return {
        "requests": len(own), "answered": len(good), "refused": sum(o.status in (429, 503) for o in outcomes),
        "failed": sum(not o.ok and o.status not in (429, 503) for o in outcomes),
        "seconds": ended - start, "ttft_ms": ms([o.ttft for o in good]),
        "per_token_ms": ms([o.per_token for o in good if o.per_token is not None]),
        "gap_ms": ms([gap for o in good for gap in o.gaps]),
        "background_ttft_ms": ms([o.ttft for o in outcomes if o.background and o.ok]),
        "tokens": sum(o.tokens for o in good), "cached_tokens": sum(o.cached_tokens for o in good),
        "goodput_per_s": len(within) / (ended - start) if ended > start else 0.0, "within_goal": len(within),
        "sent_late_ms": ms([o.sent - o.planned for o in outcomes]),
        "errors": sorted({o.error[:200] for o in outcomes if o.error})[:3],
    }


def encodes(client, since):
    """(pictures encoded, ms of an encode) since then; None for what the server's /metrics do not know."""
    pictures, seconds = client.metric(ENCODED[0], **ENCODED[1]), client.metric(ENCODING)
    pictures = None if pictures is None else pictures - since[0]
    return pictures, 1e3 * (seconds - since[1]) / pictures if pictures and seconds is not None else None


def encodes_so_far(client):
    """For encodes(since). A server that has counted nothing yet: 0."""
    return client.metric(ENCODED[0], **ENCODED[1]) or 0, client.metric(ENCODING) or 0


def run_scenario(client, name, planned, goal, note=""):
    say(f"{name}: {len(planned)} requests over {planned[-1].at:.1f} s{note}")
    before = encodes_so_far(client)
    start, outcomes = send_all(client, planned)
    out = {"name": name, **summary(start, outcomes, goal)}
    out["encodes"], out["encode_ms"] = encodes(client, before)
    out["pictures"] = len({seed for p in planned for seed in p.pictures})
    return out


def alone(client, planned):
    outcome = client.ask(planned, time.monotonic())
    if not outcome.ok:
        sys.exit(f"serve: {client.host}:{client.port} did not answer a first question: status {outcome.status}, {outcome.error or 'no token came'}")
    return outcome


def calibrate(client, seed, tokens):
    """Seconds that one question takes on a new picture and on a known one, asked one after the other."""
    say("one question after the other, on a new picture and on a known one")
    new, known = [], []
    for i in range(2):
        first = alone(client, plan.Planned(0, (seed * 7919 + i,), "Warm up.", tokens))
        new.append(first.last - first.planned)
        for j in range(3):
            again = alone(client, plan.Planned(0, (seed * 7919 + i,), f"Warm up, again ({j}).", tokens))
            known.append(again.last - again.planned)
    return figures.median(new), figures.median(known)


def scenarios(options, client):
    """Runs the wanted scenarios one after the other."""
    before = encodes_so_far(client)
    new, known = calibrate(client, options.seed, options.tokens)
    encode = encodes(client, before)[1]
    say(f"alone: a new picture {1e3 * new:.0f} ms, a known one {1e3 * known:.0f} ms, for {options.tokens} tokens")
    goal = (options.goal_ttft / 1e3, options.goal_token / 1e3)

    def rate(seconds):
        return options.rate or options.load / seconds

    def result(name, planned, note=""):
        return {**run_scenario(client, name, planned, goal, note), "alone_new_ms": 1e3 * new, "alone_known_ms": 1e3 * known, "alone_encode_ms": encode}
    if "one-picture" in options.scenario:
        r = rate(known)
        yield {**result("one-picture", plan.one_picture(r, options.seed, tokens=options.tokens), f", {r:.3g} a second"), "rate": r}
    if "reuse" in options.scenario:
        r = rate(0.2 * new + 0.8 * known)
        yield {**result("reuse", plan.reuse(r, options.seed + 1, options.reuse_count, tokens=options.tokens), f", {r:.3g} a second"), "rate": r}
    if "many-pictures" in options.scenario:
        r = rate(options.pictures * new)
        yield {**result("many-pictures", plan.many_pictures(r, options.seed + 2, options.many_count, options.pictures, options.tokens), f", {options.pictures} pictures each"), "rate": r}
    if "at-once" in options.scenario:
        rows = [result("at-once", plan.at_once(options.seed + 300 + i, tokens=options.tokens), f" at once on new picture {i + 1} of {options.repeats}") for i in range(options.repeats)]
        middle = sorted(rows, key=lambda r: r["seconds"])[len(rows) // 2]
        yield {**middle, "encodes": None if middle["encodes"] is None else sum(r["encodes"] for r in rows) / len(rows),
               "seconds_of_all": [r["seconds"] for r in rows]}
    if "stream" in options.scenario:
        # The stream runs on while the pictures are looked at: so long that the last of them ends before it does.
        calm = result("stream-alone", [plan.Planned(0.0, (), "Tell a long story.", 32)])
        token = (calm["per_token_ms"]["p50"] or 10) / 1e3
        yield calm
        beside = 3
        tokens = options.stream_tokens or min(2000, round(10 + beside * 1.2 * new / token))
        yield result("stream-beside-encodes", plan.beside_encodes(options.seed + 5, tokens, 5 * token, 1.2 * new, beside), f", a stream of {tokens} tokens")


def print_table(rows):
    head = ["scenario", "asked", "ok", "refused", "encodes", "pictures", "TTFT p50", "p90", "p99", "token p50", "p90", "p99", "longest gap", "seconds", "good/s"]
    print("\n" + figures.table(head, [[
        r["name"], r["requests"], r["answered"], r["refused"], "-" if r["encodes"] is None else f"{r['encodes']:g}", r["pictures"],
        *[number(r["ttft_ms"][k]) for k in ("p50", "p90", "p99")], *[number(r["per_token_ms"][k]) for k in ("p50", "p90", "p99")],
        number(r["gap_ms"]["max"]), f"{r['seconds']:.1f}", number(r["goodput_per_s"])] for r in rows]))
    print("times in ms; TTFT counts from when a request was due; token: mean time of an answer's tokens after the first;\n"
          "good/s: answers a second within --goal-ttft and --goal-token")


@dataclasses.dataclass
class Running:
    """The server that this program started, or nothing."""
    process: subprocess.Popen = None
    home: tempfile.TemporaryDirectory = None

    def end(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.home.cleanup()


def start_server(options):
    """(url, Running). The server's caches are in a folder of its own, so that every picture is new."""
    home = tempfile.TemporaryDirectory(prefix="chiasm-bench-")
    quiet = [] if any(word.startswith("--log-level") for word in options.server_option) else ["--log-level", "error"]
    command = [*options.program.split(), "-m", str(options.model), "--listen", "127.0.0.1:0", *quiet, *options.server_option]
    say("starting " + " ".join(command))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": home.name})
    running, url = Running(process, home), None
    for line in process.stdout:
        if line.startswith("listening on "):
            url = line.removeprefix("listening on ").strip()
        if line.strip() == "ready":
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            return url, running
    running.end()
    sys.exit(f"serve: {command[0]} ended before it was ready, with code {process.wait()}; its message stands above")


def parse(arguments):
    names = ["one-picture", "reuse", "many-pictures", "at-once", "stream"]
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    a.add_argument("-m", "--model", type=pathlib.Path, default=ROOT / "models" / "toytown", help="checkpoint to serve (default: the demo model)")
    a.add_argument("--program", default=str(ROOT / "build/release/bin/chiasm") + " serve", help="what to start, with -m, --listen and --server-option")
    a.add_argument("--server-option", action="append", default=[], metavar="WORD", help="one more word for it; again for more")
    a.add_argument("--url", help="load this server instead of starting one")
    a.add_argument("--model-name", help="what requests call the model (default: what /v1/models says)")
    a.add_argument("--key", help="API key")
    a.add_argument("--scenario", action="append", choices=names, help="default: all")
    a.add_argument("--rate", type=float, help="requests a second of one-picture, reuse, many-pictures")
    a.add_argument("--load", type=float, default=0.6, help="without --rate: share of what one request after the other reaches (default %(default)s)")
    a.add_argument("--seed", type=int, default=1, help="of arrivals and pictures")
    a.add_argument("--side", type=int, default=448, help="pixels of a picture's side (default %(default)s)")
    a.add_argument("--tokens", type=int, default=10, help="of an answer (default %(default)s)")
    a.add_argument("--reuse-count", type=int, default=200, help="pictures of 'reuse' (default %(default)s)")
    a.add_argument("--many-count", type=int, default=5, help="requests of 'many-pictures' (default %(default)s)")
    a.add_argument("--pictures", type=int, default=8, help="in each of them (default %(default)s)")
    a.add_argument("--repeats", type=int, default=5, help="of 'at-once'; the middle one is shown (default %(default)s)")
    a.add_argument("--stream-tokens", type=int, help="of 'stream' (default: as many as the encodes beside it last, at most 2000)")
    a.add_argument("--goal-ttft", type=float, default=1000, metavar="MS", help="for goodput (default %(default)s)")
    a.add_argument("--goal-token", type=float, default=200, metavar="MS", help="for goodput (default %(default)s)")
    a.add_argument("--json", type=pathlib.Path, help="also write the figures to this file")
    a.add_argument("--add", action="store_true", help="keep the runs that --json's file has already")
    options = a.parse_args(arguments)
    if options.add and not options.json:
        a.error("--add needs --json FILE")
    options.scenario = options.scenario or names
    if not options.url and not (options.model / "config.json").exists():
        a.error(f"{options.model} is no checkpoint folder (no config.json): name one with -m, or a running server with --url")
    return options


def asked(options):
    """What a run says of itself in the JSON; a checkpoint by its folder's name."""
    server = {"url": options.url} if options.url else {"checkpoint": options.model.resolve().name, "server_options": options.server_option}
    return {**server, "side": options.side, "tokens": options.tokens, "seed": options.seed, **({"rate": options.rate} if options.rate else {"load": options.load})}


def main(arguments=None):
    options = parse(arguments)
    url, running = (options.url, Running()) if options.url else start_server(options)
    try:
        client = Client(url, options.model_name, options.side, options.key)
        if client.model is None:
            client.model = json.loads(client.get("/v1/models")[1])["data"][0]["id"]
        rows = []
        for row in scenarios(options, client):
            rows.append(row)
            for error in row["errors"]:
                say(f"{row['name']}: {error}")
        print_table(rows)
        if options.json:
            earlier = json.loads(options.json.read_text(encoding="utf-8"))["runs"] if options.add and options.json.exists() else []
            figures.write_json(options.json, {"runs": [*earlier, {**figures.where(), **asked(options), "scenarios": rows}]})
        return 1 if any(r["failed"] for r in rows) else 0
    finally:
        running.end()


if __name__ == "__main__":
    sys.exit(main())
