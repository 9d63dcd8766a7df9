#!/usr/bin/env python3
"""Makes tests/data/text/*.json: what Hugging Face's `tokenizers` gives for texts and chats, with toytown's tokenizer.

Needed only to make the vectors anew; no test runs it.

    python3 -m venv VENV && VENV/bin/pip install tokenizers jinja2
    VENV/bin/python tools/make_text_vectors.py models/toytown tests/data/text

texts.json  [{"text", "ids", "decoded"}]   ids without special tokens; decoded: the ids decoded again
chats.json  [{"messages", "add_vision_id", "add_generation_prompt", "ids"}]   the chat template rendered with Jinja as
            transformers renders it (trim_blocks, lstrip_blocks), then encoded with special tokens; one image_pad or
            video_pad for each picture or video
decode.json [{"ids", "text"}]   ids decoded, special tokens skipped; most are no valid UTF-8
"""
import json
import random
import sys
from pathlib import Path

import jinja2.sandbox
from tokenizers import Tokenizer

WORDS = """the a house houses tree car dog cat person red blue green night day snowing How many are there? What is
There Is Do you see Where color Read sign Count policy check answer yes or no tags""".split()
CHINESE = "现在是白天还是夜晚天气怎么样有几座房子没有人图中是否包含火请回答是或否红色汽车在哪里"
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'LL", "'lL", "'D", "'\u017f",
                "'r", "'v", "'l", "'x", "''", "\u2019s", "'", "s'", "'sis", "'tis", "'reed"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", " \t ", "\u00a0", "\u3000", "\u2003", "\u0085",
          "\u2028", "\v", "\f", "\u1680", "\u202f", "\u200b", "\u180e", "\ufeff"]
MARKS = ["\u0301", "\u0300", "\u0308", "\u0323", "\u0307", "\u0327", "\u0303", "\u3099", "\u309a", "\u0345", "\u0653"]
BASES = list("aeiouAEIOUnNsSdDcC") + ["か", "は", "\u1100", "\u1161", "\u11a8", "가", "각", "α", "ω", "क", "\u093c"]
ODD = ["é", "ß", "ﬁ", "Å", "\u212b", "\u2126", "Ω", "ي", "مرحبا", "שלום", "नमस्ते", "สวัสดี", "привет", "Γειά", "日本語",
       "カタカナ", "안녕하세요", "🙂", "👩‍👩‍👧", "🇩🇪", "👍🏽", "½", "²", "Ⅷ", "٣", "१२", "①", "𝒳", "𠀀", "\ufffd", "\x00", "\x01",
       "\x7f", "\u200d", "\u0fb2\u0f81", "ﷺ", "がぎ", "\u1e9b\u0323", "<|im_start", "im_end|>", "{", "}", "_", "-", "#", "€"]
FIXED = [
    "", " ", "a", "\n", "Day or night?", "现在是白天还是夜晚?", "How many houses are there?", "有几座房子?",
    "Policy check: fire. Answer yes or no.", "图中是否包含火?请回答是或否。", "I'm sure we'll see, they've said he'd go",
    "I'M SURE WE'LL SEE, THEY'VE SAID HE'D GO", "3.14159 1234567890 ٣٤", "a  b   c    d", "end with spaces   ",
    "   start", "tab\tand\ttabs\t\t", "line\nline\r\nline\rline\n\n\nlast", "x \n y \r\n\r\n z", " \n", "\n \n ", "  \n  x",
    "e\u0301a\u0323\u0307 o\u0302\u0301", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한글", "\u212b \u2126 \uf900 \u2000",
    "a\u0301\u0300\u0323\u0308", "\u0301 alone", "supercalifragilisticexpialidocious" * 3, "a" * 200, " " * 200,
    "\n" * 100, "!" * 100, "ab" * 100, "é" * 60, "🙂" * 40, "e\u0301" * 60, "http://example.com/a?b=c&d=%20#frag",
    "def f(x):\n    return x ** 2  # square\n", '{"key": [1, 2.5, null, true]}', "\u0000\u0001\u0002\u001f\u007f\u0080",
    "zero\u200bwidth\u200djoiner", "مرحبا بالعالم", "مُحَمَّد", "नमस्ते दुनिया", "สวัสดีชาวโลก", "שָׁלוֹם",
]


def texts(rng):
    out = list(FIXED)
    def word():
        kind = rng.randrange(12)
        if kind < 4: return rng.choice(WORDS)
        if kind < 6: return "".join(rng.choice(CHINESE) for _ in range(rng.randint(1, 6)))
        if kind == 6: return rng.choice(WORDS) + rng.choice(CONTRACTIONS) + rng.choice(["", "a", " "])
        if kind == 7: return rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.randint(0, 4)))
        if kind == 8: return str(rng.randrange(10 ** rng.randint(1, 12)))
        if kind == 9: return "".join(rng.choice("!?.,:;-_()[]{}'\"<>|/\\") for _ in range(rng.randint(1, 5)))
        return rng.choice(ODD)
    for _ in range(300):
        parts = []
        for _ in range(rng.randint(1, 12)):
            parts.append(word())
            parts.append(rng.choice(SPACES) if rng.random() < 0.3 else rng.choice(["", " ", " "]))
        out.append("".join(parts))
    for _ in range(60):  # any old characters of the long-settled blocks
        blocks = [(0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x1100, 0x11FF), (0x3041, 0x30FF), (0x4E00, 0x9FA5),
                  (0xAC00, 0xD7A3), (0x300, 0x36F), (0x1F300, 0x1F5FF)]
        out.append("".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(rng.randint(1, 24))))
    return out


def chats(rng):
    image, video = {"type": "image"}, {"type": "video"}
    text = lambda t: {"type": "text", "text": t}
    user = lambda *parts: {"role": "user", "content": list(parts)}
    out = [
        [user(text("Day or night?"))],
        [user(image, text("Day or night?"))],
        [user(text("现在是"), image, text("白天还是夜晚?"))],
        [user(image, image, text("Which is red?"))],
        [user(video, text("Which way does the car move?"))],
        [user(image, video, image, text("x"), video)],
        [{"role": "system", "content": [text("Be brief.\n")]}, user(image, text("\nWhat?"))],
        [user(image, text("a")), {"role": "assistant", "content": [text("b")]}, user(text("c"), image)],
        [user(text(""))], [user()], [user(image)], [user(text(" e")), user(text("\u0301 joins nothing"))],
        [user(text("e"), text("\u0301 joins"), text(" 's"), text("  "), text("\n\n"))],
        [{"role": "tool-2", "content": [text("x")]}],
    ]
    return [(m, v, g) for m in out for v in (False, True) for g in (True, False)]


def main():
    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    rng = random.Random(20240917)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    specials = [t for t in tokenizer.get_added_tokens_decoder().values() if t.special]
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    rows = []
    for text in texts(rng):
        assert not any(s.content in text for s in specials)
        ids = encode(text)
        rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
    save(out / "texts.json", rows)

    template = json.loads((model / "chat_template.json").read_text())["chat_template"]
    jinja = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    rows = []
    for messages, vision_id, generation in chats(rng):
        rendered = jinja.render(messages=messages, add_vision_id=vision_id, add_generation_prompt=generation)
        rows.append({"messages": messages, "add_vision_id": vision_id, "add_generation_prompt": generation,
                     "ids": encode(rendered)})
    save(out / "chats.json", rows)

    rows = []
    for _ in range(100):
        ids = [rng.randrange(256 if rng.random() < 0.6 else tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 20))]
        rows.append({"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=True)})
    save(out / "decode.json", rows)


def save(path, rows):
    path.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
    print(path, len(rows))


main()
