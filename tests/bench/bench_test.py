#!/usr/bin/env python3
"""The benchmark's Python parts: percentiles, plans, the client's clock, parsers of what engines print, tables, the plot.

usage: bench_test.py [unittest arguments]      no network but this machine's own loopback, about a second
"""
import http.server
import json
import pathlib
import sys
import tempfile
import threading
import time
import unittest
import xml.etree.ElementTree
import zlib

BENCH = pathlib.Path(__file__).resolve().parent.parent.parent / "bench"
sys.path[:0] = [str(BENCH), str(BENCH / "peers"), str(BENCH / "serve")]
import figures  # noqa: E402
import join  # noqa: E402
import llama_cpp  # noqa: E402
import pictures  # noqa: E402
import plan  # noqa: E402
import plot  # noqa: E402
import ratios  # noqa: E402
import sample  # noqa: E402
import steps  # noqa: E402
from client import Client, Outcome, take  # noqa: E402


def load(name, file):
    """A module by file: two of the parts are called run.py."""
    import importlib.util
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


serve_run, peers_run = load("serve_run", BENCH / "serve/run.py"), load("peers_run", BENCH / "peers/run.py")


class Figures(unittest.TestCase):
    def test_percentiles(self):
        self.assertIsNone(figures.percentile([], 0.5))
        self.assertEqual(figures.percentile([7], 0.99), 7)
        self.assertEqual(figures.median([3, 1, 2]), 2)
        self.assertEqual(figures.median([4, 1, 2, 3]), 2.5)
        self.assertAlmostEqual(figures.percentile(list(range(101)), 0.9), 90)
        self.assertAlmostEqual(figures.percentile([0, 10], 0.25), 2.5)

    def test_spread(self):
        self.assertEqual(figures.spread([]), {"count": 0, "p50": None, "p90": None, "p99": None, "max": None})
        self.assertEqual(figures.spread([5, 1])["max"], 5)

    def test_numbers(self):
        self.assertEqual([figures.number(v) for v in (None, 0, 0.01234, 1.5, 12.345, 123.4, 12345.6)], ["-", "0", "0.0123", "1.50", "12.3", "123", "12346"])

    def test_table(self):
        lines = figures.table(["", "a"], [["long name", 1], ["x", 100]]).splitlines()
        self.assertEqual([len(line) for line in lines], [14] * 4)

    def test_json_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "deep" / "x.json"
            figures.write_json(file, {"a": 1})
            self.assertEqual(json.loads(file.read_text()), {"a": 1})
            self.assertEqual([p.name for p in file.parent.iterdir()], ["x.json"])


class Plans(unittest.TestCase):
    def test_arrivals_follow_from_the_seed(self):
        self.assertEqual(plan.arrivals(50, 4, 1), plan.arrivals(50, 4, 1))
        self.assertNotEqual(plan.arrivals(50, 4, 1), plan.arrivals(50, 4, 2))
        times = plan.arrivals(4000, 4, 3)
        self.assertEqual(times, sorted(times))
        self.assertAlmostEqual(times[-1] / 1000, 1, delta=0.1)  # 4 a second
        gaps = [b - a for a, b in zip(times, times[1:])]
        self.assertAlmostEqual(sum(g > 0.25 for g in gaps) / len(gaps), 0.368, delta=0.03)  # exponential: e^-1 beyond the mean

    def test_reuse(self):
        planned = plan.reuse(10, 1)
        self.assertEqual(len(planned), 200)
        seen, known = set(), 0
        for p in planned:
            known += p.pictures[0] in seen
            seen.add(p.pictures[0])
        self.assertEqual((known, len(seen)), (160, 40))
        self.assertEqual(len(plan.reuse(10, 1, count=1)), 1)

    def test_others(self):
        self.assertEqual({p.pictures for p in plan.one_picture(1, 9)}, {(9,)})
        self.assertEqual(len({p.question for p in plan.one_picture(1, 9)}), 20)
        many = plan.many_pictures(1, 9, count=3, pictures=8)
        self.assertEqual(len({seed for p in many for seed in p.pictures}), 24)
        self.assertEqual([p.at for p in plan.at_once(1)], [0.0] * 5)
        beside = plan.beside_encodes(1, 100, 1.0, 2.0, 3)
        self.assertEqual([p.background for p in beside], [False, True, True, True])

    def test_steps_of_a_log(self):
        lines = ["2026 debug step answer_tokens=1 prompt_tokens=0 pause_ms=0.1 ms=60.0 more=1", "2026 info step",
                 "2026 debug step answer_tokens=2 prompt_tokens=3 pause_ms=20.5 ms=80.0", "2026 debug step answer_tokens=0 prompt_tokens=9 pause_ms=0.0 ms=7.0"]
        self.assertEqual(steps.kinds(lines), {"answers": [(0.1, 60.0, 0)], "answers and prompts, a pause before": [(20.5, 80.0, 3)], "prompts": [(0.0, 7.0, 9)]})

    def test_pictures(self):
        data = pictures.png(30, 5)
        self.assertEqual(data, pictures.png(30, 5))
        self.assertNotEqual(data, pictures.png(30, 6))
        at = data.index(b"IDAT")
        length = int.from_bytes(data[at - 4:at], "big")
        self.assertEqual(len(zlib.decompress(data[at + 4:at + 4 + length])), 30 * (3 * 30 + 1))
        wide = pictures.png(40, 5, 30)
        at = wide.index(b"IDAT")
        self.assertEqual((wide[16:24], len(zlib.decompress(wide[at + 4:]))), (b"\0\0\0\x28\0\0\0\x1e", 30 * (3 * 40 + 1)))


class Events(unittest.TestCase):
    def chunk(self, content="", logprobs=None, **more):
        return {"choices": [{"delta": {"content": content}, "logprobs": {"content": logprobs} if logprobs else None}], **more}

    def test_tokens_and_gaps(self):
        out = Outcome(planned=1.0)
        take(out, {"choices": [{"delta": {"role": "assistant", "content": ""}}]}, 1.5)
        self.assertFalse(out.ok)
        take(out, self.chunk("a"), 2.0)
        take(out, self.chunk("", [{"token": ""}]), 2.5)  # a token without text
        take(out, self.chunk("b"), 3.5)
        take(out, {"choices": [], "usage": {"completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}}, 3.6)
        out.status = 200
        self.assertTrue(out.ok)
        self.assertEqual((out.ttft, out.gaps, out.tokens, out.cached_tokens), (1.0, [0.5, 1.0], 4, 2))
        self.assertAlmostEqual(out.per_token, 0.5)

    def test_an_error_in_the_stream(self):
        out = Outcome(status=200, first=1.0)
        take(out, {"error": {"message": "no"}}, 2.0)
        self.assertFalse(out.ok)

    def test_summary(self):
        good = Outcome(planned=0, sent=0.001, status=200, first=0.5, last=1.5, gaps=[1.0], tokens=2)
        slow = Outcome(planned=0, sent=0, status=200, first=5, last=6, gaps=[1.0], tokens=2)
        refused, failed = Outcome(status=429, error="full"), Outcome(error="reset")
        beside = Outcome(status=200, first=9, last=9, tokens=1, background=True)
        got = serve_run.summary(0, [good, slow, refused, failed, beside], (1.0, 2.0))
        self.assertEqual([got[k] for k in ("requests", "answered", "refused", "failed", "within_goal")], [4, 2, 1, 1, 1])
        self.assertEqual((got["seconds"], got["ttft_ms"]["max"], got["tokens"]), (6, 5000, 4))
        self.assertAlmostEqual(got["goodput_per_s"], 1 / 6)


class SlowServer(http.server.BaseHTTPRequestHandler):
    """Answers one request at a time, each in 50 ms, and then two tokens."""
    turn, protocol_version = threading.Lock(), "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'chiasm_features_total{source="memory"} 9\nchiasm_features_total{source="encoded"} 3\n')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["max_tokens"] == 99:
            self.send_response(503)
            self.end_headers()
            return
        with self.turn:
            time.sleep(0.05)
        self.send_response(200)
        self.end_headers()
        for token in ("a", "b"):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": token}}]}).encode() + b"\n\n")
        self.wfile.write(b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: [DONE]\n\n')


class OverHttp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
        threading.Thread(target=cls.server.serve_forever, args=(0.01,), daemon=True).start()
        cls.addClassCleanup(cls.server.server_close)
        cls.addClassCleanup(cls.server.shutdown)
        cls.client = Client(f"http://127.0.0.1:{cls.server.server_port}", "m", side=28)

    def test_latency_counts_from_the_planned_moment(self):
        # Eight due at once, answered one after the other: who waits for its turn waits since it was due.
        _, outcomes = serve_run.send_all(self.client, [plan.Planned(0.0, (1,), "q")] * 8)
        self.assertTrue(all(o.ok for o in outcomes), [o.error for o in outcomes])
        times = sorted(o.ttft for o in outcomes)
        self.assertGreater(times[-1], 0.4)
        self.assertGreater(times[-1] - times[0], 0.3)

    def test_refusals_and_metrics(self):
        got = serve_run.run_scenario(self.client, "x", [plan.Planned(0.0, (), "q", 99), plan.Planned(0.0, (4,), "q", 2)], (1, 1))
        self.assertEqual([got[k] for k in ("answered", "refused", "failed", "encodes", "pictures")], [1, 1, 0, 0, 1])
        self.assertIsNone(self.client.metric("nothing"))

    def test_nobody_there(self):
        outcome = Client("http://127.0.0.1:1", "m").ask(plan.Planned(0.0, (), "q"), time.monotonic())
        self.assertEqual((outcome.status, outcome.ok), (0, False))
        self.assertIn("Refused", outcome.error)


class Peers(unittest.TestCase):
    def test_chiasm_ask(self):
        text = 'warning\n{"images":[{"rows":256,"source":"encoded","encode_ms":10.5}],"answers":[{"token_ids":[1,2,3],"prompt_tokens":272,"cached_tokens":0,"prefill_ms":4,"decode_ms":6}]}\n'
        self.assertEqual(sample.of_chiasm_ask(text), {"encode_ms": 10.5, "prefill_tokens": 272, "prefill_ms": 4, "picture_tokens": 256, "decode_tokens": 2, "decode_ms": 6})
        with self.assertRaises(sample.Skipped):
            sample.of_chiasm_ask(text.replace('"encoded"', '"disk"'))

    def test_mtmd(self):
        end = "x: prompt eval time =  900.00 ms /  272 tokens ( 3.3 ms per token, 302 tokens per second)\nx:        eval time =    2300.50 ms /    23 runs   ( 100 ms per token)\n"
        def decoded(batch, rows, ms):
            return f"decoding image batch {batch}, n_tokens_batch = {rows}\nimage decoded (batch {batch}) in {ms} ms\n"
        old = "image slice encoded in 16000 ms\n" + decoded("1/1", 256, 6100) + end
        new = "encoding mtmd batch\nmtmd batch encoding done in 16000 ms\n" + decoded("1/2", 200, 6000) + decoded("2/2", 56, 100) + end
        for text in (old, new):
            self.assertEqual(sample.of_mtmd(text), {"encode_ms": 16000, "prefill_tokens": 256, "prefill_ms": 6100, "decode_tokens": 23, "decode_ms": 2300.5})
        with self.assertRaises(sample.Skipped):
            sample.of_mtmd("error: no model")

    def test_drivers(self):
        self.assertEqual(sample.of_json_line('log\n{"encode_ms": 1}\n'), {"encode_ms": 1})
        with self.assertRaises(sample.Skipped):
            sample.of_json_line("log\n")

    def test_running(self):
        text, peak = sample.run_measured([sys.executable, "-c", "print('x'); a = bytearray(64 << 20)"])
        self.assertEqual(text, "x\n")
        self.assertGreater(peak, 64)
        with self.assertRaisesRegex(sample.Skipped, "code 3: why"):
            sample.run_measured([sys.executable, "-c", "print('why'); raise SystemExit(3)"])

    def test_programs_of_a_build(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            with self.assertRaisesRegex(sample.Skipped, "llama-mtmd-cli"):
                llama_cpp.find_programs(folder)
            (folder / "build/bin").mkdir(parents=True)
            (folder / "build/bin/llama-mtmd-cli").touch()
            self.assertEqual(llama_cpp.find_programs(folder), folder / "build/bin")

    def test_one_that_fails_is_left_out(self):
        class Engine:
            server = None

            def __init__(self, name, fails):
                self.name, self.fails, self.calls = name, fails, 0

            def tool(self):
                self.calls += 1
                if self.fails:
                    raise sample.Skipped("broken")
                return {"encode_ms": self.calls}
        good, bad = Engine("good", False), Engine("bad", True)
        results, saved = {}, []

        class Options:
            rounds, only = 3, None
        class Quiet:
            picture_tokens = None
            say = staticmethod(lambda _: None)
        failed = peers_run.measure(Options, Quiet, [good, bad], results, saved.append)
        self.assertEqual((results, failed, bad.calls, len(saved)), ({"good": [{"encode_ms": n} for n in (1, 2, 3)]}, {"bad": "broken"}, 1, 3))

    def test_lanes_are_joined(self):
        def run(ms, **more):
            head = {"commit": "c", "cpu": "p", "checkpoint": "2b", "threads": 2, "tokens": 24, "picture": "x.png", "date": "d", "skipped": {}}
            return {**head, "results": {"peer": [{"encode_ms": ms}]}, **more}
        whole = join.joined({"a": run(1), "b": run(2, date="e", skipped={"other": "why"})})
        self.assertEqual(whole["results"], {"peer": [{"encode_ms": 1, "lane": "a"}, {"encode_ms": 2, "lane": "b"}]})
        self.assertEqual((whole["lanes"], whole["date"], whole["skipped"]), (["a", "b"], "e", {"other (b)": "why"}))
        with self.assertRaisesRegex(ValueError, "b has threads 4, a has 2"):
            join.joined({"a": run(1), "b": run(2, threads=4)})

    def test_ratios(self):
        ours = [{"encode_ms": e, "prefill_tokens": 200, "prefill_ms": 1000, "peak_mib": 100} for e in (90, 100, 5000)]
        theirs = [{"encode_ms": 250, "prefill_tokens": 100, "prefill_ms": 1000, "peak_mib": 150, "decode_tokens": 10, "decode_ms": 1000}]
        made = {name: m for name, m, _ in ratios.rows({"chiasm exact": ours, "peer": theirs})}
        self.assertEqual((made["chiasm exact"]["encode"], made["chiasm exact"]["decode"], made["peer"]["decode"]), (100, None, 10))
        self.assertEqual(ratios.ratio("encode", 100, 250), 2.5)
        self.assertEqual(ratios.ratio("prefill", 200, 100), 2)
        self.assertEqual(ratios.ratio("peak RSS", 100, 150), 1.5)
        self.assertIsNone(ratios.ratio("decode", None, 10))
        text = ratios.text({"chiasm exact": ours, "peer": theirs}, ["chiasm exact"])
        self.assertIn("against peer", text)
        self.assertIn("2.50", text)
        self.assertNotIn("against", ratios.text({"chiasm exact": ours}, ["chiasm exact"]))


class Plot(unittest.TestCase):
    def results(self):
        rows = [{"group": "ceilings", "name": "p", "threads": t, "ms": [10.0], "gflop": t} for t in (1, 2)]
        rows += [{"group": "ceilings", "name": "m", "threads": t, "ms": [100.0], "gbytes": 1.0} for t in (1, 2)]
        for threads in (1, 2):
            for x in (256, 1024, 4096):
                rows.append({"group": "scaling, encode", "name": f"{x} patches", "threads": threads, "ms": [x / threads], "gflop": x / 20, "figures": {"x": x, "layers": 2}})
        return {"cpu": "A <CPU> & more", "date": "2026-01-02T03:04:05Z", "rows": rows}

    def test_roof(self):
        rows = self.results()["rows"]
        self.assertEqual(plot.ceilings(rows, 2), (200, 10))
        self.assertEqual(plot.floor_ms({"gflop": 100, "gbytes": 1}, (200, 10)), 500)
        self.assertEqual(plot.series(rows, "scaling, encode")[2][0], (256, 128, 64))

    def test_a_whole_picture(self):
        text = plot.draw(self.results())
        root = xml.etree.ElementTree.fromstring(text)
        self.assertTrue(root.tag.endswith("svg"))
        self.assertEqual(text.count('class="line '), 2 + 2)  # of the legend and of the panel
        self.assertIn("A &lt;CPU&gt; &amp; more", text)
        self.assertNotIn("http", text.replace("http://www.w3.org/2000/svg", ""))
        self.assertIn("prefers-color-scheme: dark", text)
        with self.assertRaisesRegex(ValueError, "scaling"):
            plot.draw({"rows": []})

    def test_ticks(self):
        self.assertEqual(plot.ticks(1, 100), [1, 2, 5, 10, 20, 50, 100])
        self.assertEqual(plot.ticks(0.9, 2000), [1, 10, 100, 1000])


if __name__ == "__main__":
    unittest.main(verbosity=2)
