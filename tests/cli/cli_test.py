#!/usr/bin/env python3
"""End-to-end tests of the program chiasm: exit codes, JSON fields, what is known and what is not, messages.

usage: cli_test.py CHIASM MODEL [unittest arguments]      MODEL is models/toytown
"""
import json
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

PROGRAM, MODEL = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
EVAL = MODEL / "eval"
COMMANDS = ["ask", "encode", "inspect", "compare", "split", "quantize", "eval"]
IMAGE_FIELDS = ["path", "feature_id", "grid_thw", "rows", "source", "encode_ms"]
ANSWER_FIELDS = ["question", "answer", "token_ids", "prompt_tokens", "cached_tokens", "prefill_ms", "decode_ms", "finish_reason"]


def png(width, height):
    """A gray PNG of this size."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\0" + bytes(width)) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="chiasm-cli-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared)

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.shared))
        # Digests are remembered across tests, features are not.
        self.env = {k: v for k, v in os.environ.items() if k not in ("CHIASM_MODEL", "NO_COLOR")}
        self.env["XDG_CACHE_HOME"] = str(self.dir / "cache")
        self.env["CHIASM_MODEL"] = str(MODEL)

    def run_program(self, *arguments, code=0, stdin="", env=None):
        done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, encoding="utf-8",
                              env={**self.env, **(env or {})}, timeout=300)
        self.assertEqual(done.returncode, code, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done

    def json_of(self, *arguments, **options):
        done = self.run_program(arguments[0], "--json", *arguments[1:], **options)
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout.count("\n"), 1)
        return json.loads(done.stdout)

    def fails(self, *arguments, code=1, says=(), **options):
        """Nothing on stdout, and one message that names the command and what is needed to mend it."""
        done = self.run_program(*arguments, code=code, **options)
        self.assertEqual(done.stdout, "")
        self.assertTrue(done.stderr.startswith("chiasm"), done.stderr)
        for text in says:
            self.assertIn(text, done.stderr)
        return done.stderr

    def write(self, name, content):
        path = self.dir / name
        path.write_bytes(content)
        return path


class Help(CliTest):
    def test_every_command_has_help_with_examples(self):
        for command in COMMANDS:
            with self.subTest(command):
                done = self.run_program(command, "--help")
                self.assertIn(f"chiasm {command}", done.stdout)
                self.assertIn("Examples:\n", done.stdout)
                self.assertEqual(done.stderr, "")
                for line in done.stdout.splitlines():
                    self.assertLessEqual(len(line), 130, line)

    def test_the_program_lists_commands_exit_codes_and_environment(self):
        text = self.run_program("--help").stdout
        for word in [*COMMANDS, "Exit codes:", "Environment:", "CHIASM_MODEL", "XDG_CACHE_HOME", "Examples:"]:
            self.assertIn(word, text)

    def test_version(self):
        self.assertRegex(self.run_program("--version").stdout, r"^chiasm \d+\.\d+\.\d+\n$")

    def test_wrong_usage(self):
        picture = EVAL / "scene-00.png"
        for arguments, text in [([], "no command"), (["look"], "look"), (["ask", "--pictures", picture], "--pictures"),
                                (["ask", "-i", picture, ""], "question 1 is empty"),
                                (["ask", "-i", picture, "Day or night?", "  "], "question 2 is empty"),
                                (["ask", "-i", picture], "no question"), (["ask", "Day or night?"], "no picture"),
                                (["ask", "-i", picture, "Day?", "--temperature", "-1"], "--temperature"),
                                (["ask", "-i", picture, "Day?", "--max-tokens", "0"], "--max-tokens"),
                                (["ask", "--video"], "--video"), (["ask", "--video", "Which way does it move?"], "frames"),
                                (["ask", "-i", picture, "Day?", "--temperature", "nan"], "from 0 to 100"),
                                (["ask", "-i", picture, "Day?", "--top-p", "1.1"], "from 0 to 1"),
                                (["ask", "-i", picture, "Day?", "--repetition-penalty", "101"], "at most 100"),
                                (["ask", "-i", picture, "Day?", "--seed", "18446744073709551616"], "18446744073709551615"),
                                (["ask", "-i", picture, "Day?", "--seed", "-1"], "--seed"),
                                (["ask", "-i", picture, "Day?", "--max-tokens", "3.0"], "whole number"),
                                (["ask", "-i", picture, "Day?", "-m", ""], "--model"),
                                (["ask", "-i", picture, "Day?", "--vision-device", "gpu"], "--vision-device"),
                                (["ask", "-i", picture, "Day?", "--features", ""], "--features"),
                                (["ask", "-i", picture, "Day?", "--features-size", "much"], "--features-size"),
                                (["compare", "a", "b", "--tolerance", "nan"], "at least 0"),
                                (["encode", picture, "-o", ""], "--out"), (["encode", "-o", "x"], "no picture"),
                                (["encode", picture, "-o", self.dir / "x", "--dtype", "int8"], "bf16"),
                                (["encode", picture], "--out"), (["compare", "a"], "b"), (["split", MODEL], "out")]:
            with self.subTest(arguments=arguments):
                text_out = self.fails(*arguments, code=2, says=[text])
                self.assertIn("--help", text_out)


class Ask(CliTest):
    def test_fields_are_as_promised(self):
        picture = EVAL / "scene-00.png"
        out = self.json_of("ask", "-i", picture, "Day or night?", "有几棵树?", "--logprobs", 2)
        self.assertEqual(list(out), ["model", "images", "answers"])
        self.assertEqual(out["model"], str(MODEL))
        image, = out["images"]
        self.assertEqual(list(image), IMAGE_FIELDS)
        self.assertEqual(image["path"], str(picture))
        self.assertRegex(image["feature_id"], "^[0-9a-f]{64}$")
        self.assertEqual(image["source"], "encoded")
        self.assertGreater(image["encode_ms"], 0)
        t, h, w = image["grid_thw"]
        self.assertEqual(image["rows"], t * h * w // 4)
        self.assertEqual([answer["question"] for answer in out["answers"]], ["Day or night?", "有几棵树?"])
        for answer in out["answers"]:
            self.assertEqual(list(answer), ANSWER_FIELDS + ["logprobs"])
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertEqual(len(answer["logprobs"]), len(answer["token_ids"]))
            for token, id in zip(answer["logprobs"], answer["token_ids"]):
                self.assertEqual(list(token), ["id", "logprob", "top"])
                self.assertEqual(token["id"], id)
                self.assertLessEqual(token["logprob"], 0)
                self.assertEqual(len(token["top"]), 2)
                self.assertEqual(token["top"][0], [id, token["logprob"]])  # greedy takes the first
        first, second = out["answers"]
        self.assertEqual(first["cached_tokens"], 0)
        self.assertGreater(second["cached_tokens"], image["rows"])
        self.assertLess(second["cached_tokens"], second["prompt_tokens"])

    def test_answers_are_the_references(self):
        for record in json.loads((EVAL / "truth.json").read_text())[:4]:
            reference = record["reference"]
            answer, = self.json_of("ask", "-i", EVAL / record["image"], reference["question"])["answers"]
            self.assertEqual(answer["token_ids"], reference["generated_ids"])
            self.assertEqual(answer["answer"], reference["generated"])
            self.assertEqual(answer["prompt_tokens"], len(reference["input_ids"]))

    def test_a_second_run_does_not_look_again(self):
        command = ["ask", "-i", EVAL / "scene-03.jpg", "What is the weather?"]
        first, second = self.json_of(*command), self.json_of(*command)
        self.assertEqual((first["images"][0]["source"], second["images"][0]["source"]), ("encoded", "disk"))
        self.assertEqual(second["images"][0]["encode_ms"], 0)
        self.assertEqual(first["answers"][0]["token_ids"], second["answers"][0]["token_ids"])
        self.assertEqual(len(list((self.dir / "cache" / "chiasm" / "features").rglob("*.safetensors"))), 1)
        text = self.run_program(*command).stdout
        self.assertIn("known (disk): the vision encoder did not run", text)

    def test_without_features_it_looks_again(self):
        command = ["ask", "-i", EVAL / "scene-01.png", "Day or night?", "--features", "none"]
        sources = [self.json_of(*command)["images"][0]["source"] for _ in range(2)]
        self.assertEqual(sources, ["encoded", "encoded"])
        self.assertFalse((self.dir / "cache" / "chiasm" / "features").exists())

    def test_one_picture_twice_is_looked_at_once(self):
        picture = EVAL / "scene-01.png"
        images = self.json_of("ask", "-i", picture, "-i", picture, "Which picture shows night?")["images"]
        self.assertEqual([image["source"] for image in images], ["encoded", "memory"])
        self.assertEqual(images[0]["feature_id"], images[1]["feature_id"])

    def test_a_video_and_the_questions_behind_it(self):
        video = json.loads((EVAL / "video.json").read_text())
        frames = [EVAL / name for name in video["frames"]]
        asked = [q for q in video["questions"] if q["kind"] == "motion"][:2]
        out = self.json_of("ask", "--video", *frames, *(q["question"] for q in asked))
        self.assertEqual(list(out), ["model", "images", "videos", "answers"])
        self.assertEqual(out["images"], [])
        seen, = out["videos"]
        self.assertEqual(list(seen), ["paths"] + IMAGE_FIELDS[1:])
        self.assertEqual(seen["paths"], [str(frame) for frame in frames])
        self.assertEqual(seen["grid_thw"][0], 2)
        self.assertEqual([a["answer"] for a in out["answers"]], [q["answer"] for q in asked])
        # A picture beside it, and "--" before the question.
        both = self.json_of("ask", "--video", *frames, "-i", EVAL / "scene-00.png", "--", asked[0]["question"])
        self.assertEqual((len(both["images"]), len(both["videos"])), (1, 1))
        self.assertEqual(both["videos"][0]["source"], "disk")

    def test_questions_from_standard_input(self):
        out = self.json_of("ask", "-i", EVAL / "scene-00.png", stdin="Day or night?\n\n有几棵树?\r\n")
        self.assertEqual([a["question"] for a in out["answers"]], ["Day or night?", "有几棵树?"])
        out = self.json_of("ask", "-i", EVAL / "scene-00.png", "Day or night?", "-", stdin="有几棵树?")
        self.assertEqual([a["question"] for a in out["answers"]], ["Day or night?", "有几棵树?"])

    def test_batch_prefix_and_threads_change_no_answer(self):
        questions = [q["question"] for q in json.loads((EVAL / "truth.json").read_text())[2]["questions"]][:12]
        command = ["ask", "-i", EVAL / "scene-02.png", *questions]
        expected = [a["token_ids"] for a in self.json_of(*command)["answers"]]
        apart = self.json_of(*command, "--no-share-prefix", "--threads", 1)["answers"]
        self.assertEqual([a["token_ids"] for a in apart], expected)
        self.assertEqual({a["cached_tokens"] for a in apart}, {0})
        for question, ids in list(zip(questions, expected))[:2]:
            alone = self.json_of("ask", "-i", EVAL / "scene-02.png", question)["answers"]
            self.assertEqual([a["token_ids"] for a in alone], [ids])

    def test_sampling(self):
        command = ["ask", "-i", EVAL / "scene-02.png", "Describe the picture.", "--temperature", 8, "--max-tokens", 20]
        ids = [self.json_of(*command, "--seed", seed)["answers"][0]["token_ids"] for seed in (1, 1, 2)]
        self.assertEqual(ids[0], ids[1])
        self.assertNotEqual(ids[0], ids[2])
        greedy = self.json_of("ask", "-i", EVAL / "scene-02.png", "Describe the picture.")["answers"][0]["token_ids"]
        narrow = self.json_of(*command, "--seed", 3, "--top-k", 1)["answers"][0]["token_ids"]
        self.assertEqual(narrow, greedy[:20])
        cut = self.json_of("ask", "-i", EVAL / "scene-02.png", "Describe the picture.", "--max-tokens", 2)["answers"][0]
        self.assertEqual((cut["finish_reason"], cut["token_ids"]), ("length", greedy[:2]))

    def test_text_for_people(self):
        text = self.run_program("ask", "-i", EVAL / "scene-00.png", "Day or night?", "有几棵树?", "--logprobs", 1).stdout
        self.assertRegex(text, r"scene-00.png: grid 1x\d+x\d+, \d+ rows; looked at in [0-9.]+ ms \(decode [0-9.]+, resize ")
        self.assertRegex(text, r"Q  有几棵树\?\nA  \S+\n   reused [1-9]\d* of \d+ prompt tokens, prefill [0-9.]+ ms, decode [0-9.]+ ms \(\d tokens\)")
        self.assertNotIn("\x1b", text)

    def test_progress_and_bold_on_a_terminal_only(self):
        def on_terminal(*extra, env=None):
            try:
                main, side = pty.openpty()
            except OSError as error:  # a container without /dev/pts
                self.skipTest(f"no pseudo-terminal here: {error}")
            done = subprocess.run([PROGRAM, "ask", "-i", EVAL / "scene-00.png", "Day or night?", *extra], stdin=subprocess.DEVNULL,
                                  stdout=side, stderr=side, env={**self.env, "TERM": "xterm", **(env or {})}, timeout=300)
            os.close(side)
            self.assertEqual(done.returncode, 0)
            out = b""
            try:
                while block := os.read(main, 65536):
                    out += block
            except OSError:  # how Linux says that the other side is closed
                pass
            os.close(main)
            return out.decode()
        shown = on_terminal()
        self.assertIn("looking at", shown)
        self.assertIn("\x1b[1m", shown)
        self.assertNotIn("\x1b", on_terminal("--quiet", env={"NO_COLOR": "1"}))
        self.assertNotIn("\x1b", on_terminal("--json"))

    def test_a_reader_that_leaves_is_no_crash(self):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run([PROGRAM, "inspect", MODEL], stdout=write, stderr=subprocess.PIPE, env=self.env, timeout=300)
        os.close(write)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_a_reader_that_leaves_changes_no_exit_code(self):
        a, b = self.dir / "a.safetensors", self.dir / "b.safetensors"
        self.run_program("encode", EVAL / "scene-00.png", "-o", a)
        self.run_program("encode", EVAL / "scene-01.png", "-o", b)
        pictures = [EVAL / f"scene-0{i}.png" for i in range(3)]
        for arguments, code in ([["compare", a, b], 3], [["encode", *pictures, "-o", self.dir / "all"], 0]):
            read, write = os.pipe()
            os.close(read)
            done = subprocess.run([PROGRAM, *map(str, arguments)], stdout=write, stderr=subprocess.PIPE, env=self.env, timeout=300)
            os.close(write)
            self.assertEqual((done.returncode, done.stderr), (code, b""), arguments)
        self.assertEqual(len(list((self.dir / "all").iterdir())), 3)

    def test_words_behind_two_dashes(self):
        odd = self.dir / "-odd.png"
        shutil.copy(EVAL / "scene-00.png", odd)
        out = self.json_of("ask", "-i", EVAL / "scene-00.png", "Day?", "--", "-x?", "--json", "--")
        self.assertEqual([a["question"] for a in out["answers"]], ["Day?", "-x?", "--json", "--"])
        subprocess.run([PROGRAM, "encode", EVAL / "scene-01.png", "-o", "out/", "--", odd.name], cwd=self.dir, env=self.env, check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
        self.assertEqual(len(list((self.dir / "out").iterdir())), 2)

    def test_warnings(self):
        picture = EVAL / "scene-00.png"
        done = self.run_program("ask", "-i", picture, EVAL / "scene-01.png", "Day or night?")
        self.assertIn("scene-01.png' is a file", done.stderr)
        self.assertIn("most likely", self.run_program("ask", "-i", picture, "Day?", "--top-p", 0.5).stderr)
        model = self.dir / "published"
        shutil.copytree(MODEL, model, ignore=shutil.ignore_patterns("eval", "recipe"))
        config = json.loads((model / "generation_config.json").read_text())
        (model / "generation_config.json").write_text(json.dumps({**config, "do_sample": True, "top_k": 1, "top_p": 0.001}))
        ask = ["ask", "-m", model, "-i", picture, "Describe the picture.", "--max-tokens", 5]
        self.assertEqual(self.run_program(*ask).stderr, "")
        self.assertIn("--top-k 0 --top-p 1", self.run_program(*ask, "--temperature", 2, "--seed", 1).stderr)
        self.assertEqual(self.run_program(*ask, "--temperature", 2, "--top-k", 0, "--top-p", 1).stderr, "")
        nowhere = {k: v for k, v in self.env.items() if k not in ("HOME", "XDG_CACHE_HOME")}
        done = subprocess.run([PROGRAM, "ask", "-i", picture, "Day?"], env=nowhere, capture_output=True, encoding="utf-8", timeout=300)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--features DIR", done.stderr)

    def test_an_empty_system_text_is_not_the_models_own(self):
        tokens = [self.json_of("ask", "-i", EVAL / "scene-00.png", "Day?", *extra)["answers"][0]["prompt_tokens"]
                  for extra in ([], ["--system", ""], ["--system", "You are a helpful assistant."])]
        self.assertLess(tokens[1], tokens[0])
        self.assertEqual(tokens[2], tokens[0])

    def test_a_full_disk_is_said(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PROGRAM, "inspect", MODEL], stdout=full, stderr=subprocess.PIPE, env=self.env, timeout=300)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot write to standard output", done.stderr)


class Faults(CliTest):
    def test_models(self):
        ask = ["ask", "-i", EVAL / "scene-00.png", "Day or night?"]
        ways = ["/no/such/model", "-m DIR", "CHIASM_MODEL", "demo model"]
        self.fails(*ask, "-m", "/no/such/model", says=ways)
        self.fails(*ask, env={"CHIASM_MODEL": "/no/such/model"}, says=ways)
        self.fails(*ask, "-m", EVAL / "truth.json", says=["truth.json", "checkpoint folder"])
        self.fails(*ask, "-m", EVAL, says=[str(EVAL)])

    def test_pictures(self):
        whole = (EVAL / "scene-03.jpg").read_bytes()
        for name, content, text in [("note.txt", b"not a picture at all", ""), ("empty.png", b"", ""),
                                    ("cut.jpg", whole[: len(whole) // 2], ""), ("cut.png", (EVAL / "scene-00.png").read_bytes()[:-300], ""),
                                    ("narrow.png", png(1, 300), "200")]:
            with self.subTest(name):
                path = self.write(name, content)
                self.fails("ask", "-i", path, "Day or night?", says=[str(path), text])
                self.fails("encode", path, "-o", self.dir / "out.safetensors", says=[str(path), text])
                self.assertFalse((self.dir / "out.safetensors").exists())
        self.fails("ask", "-i", self.dir / "absent.png", "Day or night?", says=["absent.png", "No such file"])
        self.fails("ask", "-i", self.dir, "Day or night?", says=[str(self.dir)])
        self.fails("ask", "--video", EVAL / "video-frame-0.png", self.dir / "frame.png", "Day or night?", says=["frame.png"])

    def test_each_half_has_a_device_of_its_own(self):
        ask = ["ask", "-i", EVAL / "scene-00.png", "Day or night?"]
        self.assertRegex(self.fails(*ask, "--device", "cpu", "--vision-device", "cuda:1023", "--features", "none"), "(?i)cuda")
        # The picture has been looked at by then.
        late = self.run_program(*ask, "--device", "cuda:1023", "--vision-device", "cpu", "--features", "none", code=1)
        self.assertRegex(late.stderr, "(?i)cuda")
        self.run_program(*ask, "--device", "cpu", "--vision-device", "cpu")
        # A known picture needs no vision device.
        self.run_program(*ask, "--device", "cpu", "--vision-device", "cuda:1023")

    def test_a_bad_feature_file_is_looked_at_anew(self):
        command = ["ask", "-i", EVAL / "scene-00.png", "Day or night?"]
        expected = self.json_of(*command)["answers"][0]["token_ids"]
        file, = (self.dir / "cache" / "chiasm" / "features").rglob("*.safetensors")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        done = self.run_program(*command, "--json")
        self.assertIn("warning", done.stderr)
        again = json.loads(done.stdout)
        self.assertEqual((again["images"][0]["source"], again["answers"][0]["token_ids"]), ("encoded", expected))
        self.assertEqual(self.json_of(*command)["images"][0]["source"], "disk")

    def test_features_that_is_a_file(self):
        file = self.write("file", b"")
        self.fails("ask", "-i", EVAL / "scene-00.png", "Day?", "--features", file, says=["--features", str(file)])

    def test_outputs(self):
        picture = EVAL / "scene-00.png"
        file = self.write("file", b"")
        self.fails("encode", picture, "-o", file / "below.safetensors", says=["cannot write", str(file)])
        self.fails("encode", picture, EVAL / "scene-01.png", "-o", file, code=2, says=[str(file), "folder"])
        self.fails("encode", picture, picture, "-o", self.dir / "out", code=2, says=["both"])
        self.fails("split", MODEL, MODEL, says=[str(MODEL)])

    def test_no_file_of_the_users_is_replaced(self):
        for name in ("scene.png", "notes.safetensors"):
            file = self.write(name, (EVAL / "scene-00.png").read_bytes())
            before = file.read_bytes()
            self.fails("encode", file, "-o", file, code=2, says=[name, "no feature file"])
            self.fails("encode", EVAL / "scene-01.png", "-o", file, code=2, says=[name])
            self.assertEqual(file.read_bytes(), before)
        (self.dir / "out").mkdir()
        self.write("out/scene-01.png.safetensors", b"mine")
        self.fails("encode", EVAL / "scene-00.png", EVAL / "scene-01.png", "-o", self.dir / "out", code=2, says=["scene-01.png.safetensors"])
        for _ in range(2):  # feature files are replaced, and a link stays one
            (self.dir / "link").exists() or (self.dir / "link").symlink_to("real.safetensors")
            self.run_program("encode", EVAL / "scene-00.png", "-o", self.dir / "link")
        self.assertTrue((self.dir / "link").is_symlink())
        self.json_of("inspect", self.dir / "real.safetensors")
        self.fails("encode", EVAL / "scene-00.png", "-o", "/dev/stdout", code=2, says=["standard output"])
        os.mkfifo(self.dir / "pipe")
        with subprocess.Popen(["cat", self.dir / "pipe"], stdout=subprocess.PIPE) as reader:
            self.run_program("encode", EVAL / "scene-00.png", "-o", self.dir / "pipe")
            self.assertEqual(reader.communicate(timeout=60)[0], (self.dir / "real.safetensors").read_bytes())

    def test_a_model_folder_of_any_name(self):
        model = os.fsencode(self.dir) + b"/m\xff"
        shutil.copytree(os.fsencode(MODEL), model, ignore=lambda _, names: [n for n in names if n in (b"eval", b"recipe")])
        done = subprocess.run([PROGRAM, "encode", "-m", model, EVAL / "scene-00.png", "-o", self.dir / "f"], env=self.env, capture_output=True, timeout=300)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(self.json_of("inspect", self.dir / "f")["model"], "m?")

    def test_one_bad_picture_among_good_ones(self):
        bad = self.write("bad.png", b"no")
        done = self.run_program("encode", EVAL / "scene-00.png", bad, EVAL / "scene-01.png", "-o", self.dir / "out", "--json", code=1)
        files = [json.loads(line)["file"] for line in done.stdout.splitlines()]
        self.assertEqual([pathlib.Path(file).name for file in files], ["scene-00.png.safetensors", "scene-01.png.safetensors"])
        self.assertIn("bad.png", done.stderr)
        self.assertIn("1 of 3", done.stderr)

    def test_inspect(self):
        self.fails("inspect", "/no/such/path", says=["/no/such/path"])
        self.fails("inspect", EVAL / "truth.json", says=["truth.json"])
        self.fails("inspect", EVAL, says=[str(EVAL)])
        self.fails("inspect", MODEL / "model-00001-of-00002.safetensors", says=["folder"])

    def test_eval(self):
        self.fails("eval", "--data", self.dir, says=["truth.json", "--data"])
        self.write("truth.json", b'[{"image": "a.png", "questions": [{"question": 1}]}]')
        self.fails("eval", "--data", self.dir, says=["truth.json", "question", "string"])


class Features(CliTest):
    def encode(self, name, *extra):
        file = self.dir / name
        out = self.json_of("encode", EVAL / "scene-00.png", "-o", file, *extra)
        self.assertEqual(list(out), IMAGE_FIELDS + ["file"])
        self.assertEqual(out["file"], str(file))
        return file

    def test_compare_gives_a_verdict(self):
        exact, rounded = self.encode("exact.safetensors"), self.encode("rounded.safetensors", "--dtype", "bf16")
        same = self.json_of("compare", exact, exact)
        self.assertTrue(same["identical"] and same["within"])
        self.assertEqual((same["max_abs"], same["relative_l2"]), (0, 0))
        self.assertAlmostEqual(same["cosine_min"], 1, places=12)
        drift = self.json_of("compare", exact, rounded)
        self.assertTrue(drift["within"])
        self.assertFalse(drift["identical"])
        self.assertGreater(drift["relative_l2"], 1e-4)
        self.assertLess(drift["relative_l2"], drift["tolerance"]["relative_l2"])
        self.assertEqual(len(drift["cosine"]), drift["rows"])
        self.assertEqual([d["field"] for d in drift["metadata_differences"]], ["dtype"])
        beyond = self.json_of("compare", exact, rounded, "--tolerance", 1e-4, code=3)
        self.assertFalse(beyond["within"])
        self.assertEqual(beyond["tolerance"]["relative_l2"], 1e-4)
        self.assertIn("within the tolerance", self.run_program("compare", exact, rounded).stdout)
        self.assertIn("BEYOND", self.run_program("compare", exact, rounded, "--tolerance", 1e-4, code=3).stdout)
        self.run_program("compare", exact, rounded, "--max-abs", 1e-6, code=3)

    def test_compare_of_different_shapes_is_a_fault(self):
        exact = self.encode("exact.safetensors")
        other = self.dir / "other.safetensors"
        self.run_program("encode", EVAL / "scene-00.png", "--max-pixels", 20000, "-o", other)
        self.fails("compare", exact, other, says=["exact.safetensors", "other.safetensors"])
        self.fails("compare", exact, EVAL / "scene-00.png", says=["scene-00.png"])

    def test_any_safetensors_reader_opens_the_file(self):
        file = self.encode("half.safetensors", "--dtype", "f16").read_bytes()
        size, = struct.unpack("<Q", file[:8])
        header = json.loads(file[8:8 + size])
        self.assertEqual(header["__metadata__"]["format"], "chiasm.feature/1")
        tensor = header["image_embeds"]
        self.assertEqual(tensor["dtype"], "F16")
        self.assertEqual(len(file), 8 + size + 2 * tensor["shape"][0] * tensor["shape"][1])

    def test_inspect_a_feature(self):
        file = self.encode("exact.safetensors")
        out = self.json_of("inspect", file)
        image, = self.json_of("ask", "-i", EVAL / "scene-00.png", "Day or night?")["images"]
        self.assertEqual((out["kind"], out["dtype"]), ("feature", "F32"))
        self.assertIn(out["arithmetic"], ("F32", "BF16"))  # as the device computes
        for field in ("feature_id", "grid_thw", "rows"):
            self.assertEqual(out[field], image[field])
        statistics = out["statistics"]
        self.assertTrue(statistics["min"] < statistics["mean"] < statistics["max"])
        text = self.run_program("inspect", file).stdout
        for word in ("feature_id", "vision_digest", "grid_thw", "mean"):
            self.assertIn(word, text)
        damaged = self.write("damaged.safetensors", file.read_bytes()[:-4])
        self.fails("inspect", damaged, says=["damaged.safetensors"])


class Precision(CliTest):
    def test_a_quantised_folder_answers_as_rounding_while_loading_does(self):
        out = self.dir / "int8"
        done = self.json_of("quantize", "-m", MODEL, "--precision", "int8", out)
        self.assertEqual((done["precision"], done["vision_precision"]), ("int8", "int8"))
        exact, rounded = self.json_of("inspect", MODEL), self.json_of("inspect", out)
        for part in ("vision", "language"):
            self.assertEqual(rounded["parts"][part]["precision"], "int8")
            self.assertEqual(rounded["parts"][part]["parameters"], exact["parts"][part]["parameters"])
        self.assertNotEqual(rounded["vision_digest"], exact["vision_digest"])
        self.assertLess(done["bytes"], 0.75 * sum(exact["parts"][p]["bytes"] for p in exact["parts"]))

        ask = ["-i", EVAL / "scene-04.png", "How many houses are there?", "--features", self.dir / "features"]
        now, = self.json_of("ask", "-m", MODEL, "--precision", "int8", *ask)["answers"]
        stored = self.json_of("ask", "-m", out, *ask)  # the feature of the run before is its own
        self.assertEqual(stored["images"][0]["source"], "disk")
        self.assertEqual(stored["answers"][0]["token_ids"], now["token_ids"])
        # Exact answers look for themselves.
        self.assertEqual(self.json_of("ask", "-m", MODEL, *ask)["images"][0]["source"], "encoded")

    def test_what_cannot_be(self):
        self.fails("quantize", "-m", MODEL, self.dir / "out", code=2, says=["--precision int8"])
        self.fails("quantize", "-m", MODEL, "--precision", "int9", self.dir / "out", code=2, says=["exact, int8, int4 or fp8", "int9"])
        self.fails("quantize", "-m", MODEL, "--precision", "fp8", self.dir / "out", says=["choose int8 or int4", "rounds while loading"])
        out = self.dir / "int4"
        self.run_program("quantize", "-m", MODEL, "--precision", "int4", out)
        self.fails("quantize", "-m", out, "--precision", "int8", self.dir / "again", says=["stored as int8 already"])
        self.fails("ask", "-m", out, "--precision", "int8", "-i", EVAL / "scene-04.png", "?", says=["stored as int4"])


class Split(CliTest):
    def test_the_halves_work_apart(self):
        halves, shared = self.dir / "halves", self.dir / "shared"
        done = self.json_of("split", MODEL, halves)
        whole = self.json_of("inspect", MODEL)
        eye, mind = self.json_of("inspect", halves / "vision"), self.json_of("inspect", halves / "language")
        self.assertEqual([s["kind"] for s in (whole, eye, mind)], ["checkpoint", "vision", "language"])
        self.assertEqual({s["vision_digest"] for s in (whole, eye, mind, done)}, {whole["vision_digest"]})
        self.assertEqual({**eye["parts"], **mind["parts"]}, whole["parts"])
        self.assertEqual({**eye["memory"], **mind["memory"]}, whole["memory"])
        self.assertGreater(mind["memory"]["language"]["kv_bytes_per_token"], 0)
        self.assertIn("an estimate", self.run_program("inspect", halves / "vision").stdout)
        total = sum(part["count"] * product(part["shape"]) for part in eye["parts"]["vision"]["shapes"])
        self.assertEqual(total, eye["parts"]["vision"]["parameters"])

        picture, question = EVAL / "scene-04.png", "How many houses are there?"
        expected, = self.json_of("ask", "-i", picture, question, "--features", "none")["answers"]
        ask = ["ask", "-m", halves / "language", "--features", shared, "-i", picture, question]
        # Not known yet, and there is nothing to look with.
        message = self.fails(*ask, says=["no vision encoder", "chiasm encode -m", str(shared)])
        self.assertIn("scene-04.png", message)
        seen = self.json_of("encode", "-m", halves / "vision", "--features", shared, picture, "-o", self.dir / "f.safetensors")
        self.assertEqual(seen["source"], "encoded")
        # The encoder is not even on this machine any more.
        shutil.rmtree(halves / "vision")
        out = self.json_of(*ask)
        self.assertEqual(out["images"][0]["source"], "disk")
        self.assertEqual(out["images"][0]["feature_id"], seen["feature_id"])
        self.assertEqual(out["answers"][0]["token_ids"], expected["token_ids"])

    def test_feature_files_stand_for_pictures_and_videos(self):
        halves = self.dir / "halves"
        self.run_program("split", MODEL, halves)
        video = json.loads((EVAL / "video.json").read_text())
        frames = [EVAL / name for name in video["frames"]]
        asked = next(q for q in video["questions"] if q["kind"] == "motion")
        mind = ["ask", "-m", halves / "language", "--features", "none"]
        advice = self.fails(*mind, "--video", *frames, asked["question"], says=["--video", str(frames[3])])
        self.assertIn("chiasm encode -m VISION_FOLDER --video", advice)
        drive = self.dir / "drive.safetensors"
        out = self.json_of("encode", "-m", halves / "vision", "--video", *frames, "-o", drive)
        self.assertEqual(out["paths"], [str(frame) for frame in frames])
        answer, = self.json_of(*mind, "--video", drive, asked["question"])["answers"]
        self.assertEqual(answer["answer"], asked["answer"])
        self.fails(*mind, "-i", drive, asked["question"], says=["--video"])

        picture, question = EVAL / "scene-04.png", "How many houses are there?"
        file = self.dir / "picture.safetensors"
        self.run_program("encode", "-m", halves / "vision", picture, "-o", file)
        expected, = self.json_of("ask", "-i", picture, question)["answers"]
        out = self.json_of(*mind, "-i", file, question)
        self.assertEqual(out["images"][0]["source"], "disk")
        self.assertEqual(out["answers"][0]["token_ids"], expected["token_ids"])
        # Several at once, one a video.
        self.run_program("encode", picture, "--video", *frames, "-o", self.dir / "both")
        self.assertEqual(sorted(f.name for f in (self.dir / "both").iterdir()), ["scene-04.png.safetensors", "video-frame-0.png.safetensors"])

    def test_features_of_other_weights_are_refused_naming_both_digests(self):
        other, shared, picture = self.dir / "other", self.dir / "shared", EVAL / "scene-04.png"
        shutil.copytree(MODEL, other, ignore=shutil.ignore_patterns("eval", "recipe"))
        for shard in other.glob("*.safetensors"):
            content = bytearray(shard.read_bytes())
            size, = struct.unpack("<Q", content[:8])
            header = json.loads(content[8:8 + size])
            if "visual.merger.mlp.2.bias" in header:
                content[8 + size + header["visual.merger.mlp.2.bias"]["data_offsets"][0]] ^= 1
                shard.write_bytes(content)
        self.run_program("split", MODEL, self.dir / "halves")
        digests = [self.json_of("inspect", folder)["vision_digest"] for folder in (other, self.dir / "halves" / "language")]
        self.assertNotEqual(*digests)
        file = self.dir / "f.safetensors"
        self.run_program("encode", "-m", other, "--features", shared, picture, "-o", file)
        ask = ["ask", "-m", self.dir / "halves" / "language", "--features", shared, "Day?"]
        self.fails(*ask, "-i", picture, says=digests)
        self.fails(*ask, "-i", file, says=digests)
        # The same weights, another size.
        self.run_program("encode", "-m", self.dir / "halves" / "vision", "--features", shared, "--max-pixels", 20000, picture, "-o", file)
        self.fails(*ask, "-i", picture, says=["--max-pixels", "preprocess_digest"])
        self.run_program(*ask, "-i", picture, "--max-pixels", 20000)

    def test_an_interrupted_split_leaves_nothing(self):
        out = self.dir / "place" / "halves"
        out.parent.mkdir()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen([PROGRAM, "split", MODEL, out, "-q"], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while process.poll() is None and not any(out.parent.iterdir()):
                time.sleep(0.0005)
            process.send_signal(signal_number)
            process.communicate(timeout=60)
            if process.returncode == 0:  # it was faster
                shutil.rmtree(out)
            else:
                self.assertEqual(process.returncode, 128 + signal_number)
            self.assertEqual(list(out.parent.iterdir()), [])

    def test_the_vision_half_does_not_answer(self):
        self.run_program("split", MODEL, self.dir / "halves")
        self.fails("ask", "-m", self.dir / "halves" / "vision", "-i", EVAL / "scene-00.png", "Day?", says=["language"])

    def test_no_clobbering(self):
        (self.dir / "full").mkdir()
        self.write("full/file", b"")
        self.fails("split", MODEL, self.dir / "full", says=[str(self.dir / "full")])


def product(shape):
    out = 1
    for side in shape:
        out *= side
    return out


class Eval(CliTest):
    def test_counts_are_those_of_the_data(self):
        records = json.loads((EVAL / "truth.json").read_text())[:2]
        records[0]["questions"] = records[0]["questions"][:10]
        records[1]["questions"] = records[1]["questions"][:10]
        records[1]["questions"][3]["answer"] = "A wrong truth."
        for record in records:
            if record["reference"]["question"] not in [q["question"] for q in record["questions"]]:
                record["questions"].append(dict(question=record["reference"]["question"], answer=record["reference"]["generated"], kind="other"))
            shutil.copy(EVAL / record["image"], self.dir)
        records[0]["reference"]["generated_ids"][0] += 1
        self.write("truth.json", json.dumps(records).encode())
        out = self.json_of("eval", "--data", self.dir)
        of = sum(len(record["questions"]) for record in records)
        self.assertEqual(out["overall"]["of"], of)
        self.assertEqual(sum(score["of"] for score in out["kinds"].values()), of)
        self.assertEqual(out["overall"]["exact"] + len(out["wrong"]), of)
        self.assertIn("A wrong truth.", [wrong["expected"] for wrong in out["wrong"]])
        self.assertEqual(out["reference"], {"identical": 1, "of": 2})
        self.assertEqual((out["pictures"], out["encoded"]), (2, 2))
        self.assertGreater(out["questions_per_s"], 0)
        self.assertGreater(out["cached_tokens"], out["prompt_tokens"] // 2)
        text = self.run_program("eval", "--data", self.dir, "--wrong").stdout
        self.assertIn("1 of 2 answers", text)
        self.assertIn("A wrong truth.", text)


if __name__ == "__main__":
    sys.argv[1:3] = []
    unittest.main()
