"""Toy town: synthetic pictures with known contents, and questions with true answers.

A scene is a plain dict (the truth); `draw` paints it at any size; `questions` lists (question, answer, kind).
Everything is a pure function of a `random.Random`, so a seed names a data set.
"""
import glob
import importlib.util
import math
import os
import random

from PIL import Image, ImageDraw, ImageFont

PAINTS = {  # name: (rgb, Chinese name)
    "red": ((208, 45, 45), "红色"), "blue": ((52, 96, 210), "蓝色"), "yellow": ((238, 200, 50), "黄色"),
    "green": ((46, 160, 80), "绿色"), "white": ((238, 238, 232), "白色"), "purple": ((140, 70, 170), "紫色"),
}
WEATHER = {"clear": "晴天", "cloudy": "多云", "rainy": "下雨", "snowy": "下雪"}
BACK = ["house", "tree"]
FRONT = ["car", "person", "dog", "cat", "fire", "bottle", "knife", "code", "sign"]
NOUNS = {  # kind: (singular, plural, Chinese with measure word, Chinese noun)
    "house": ("house", "houses", "座房子", "房子"), "tree": ("tree", "trees", "棵树", "树"), "car": ("car", "cars", "辆车", "车"),
    "person": ("person", "people", "个人", "人"), "dog": ("dog", "dogs", "只狗", "狗"), "cat": ("cat", "cats", "只猫", "猫"),
    "fire": ("fire", "fires", "处火", "火"), "bottle": ("bottle", "bottles", "个酒瓶", "酒瓶"), "knife": ("knife", "knives", "把刀", "刀"),
    "code": ("QR code", "QR codes", "个二维码", "二维码"), "sign": ("sign", "signs", "块牌子", "牌子"),
    "balloon": ("balloon", "balloons", "个气球", "气球"), "bird": ("bird", "birds", "只鸟", "鸟"),
}
NUMBERS = ["no", "one", "two", "three", "four", "five", "six"]
NUMBERS_ZH = ["没有", "一", "两", "三", "四", "五", "六"]
PLACES = {"left": "左边", "middle": "中间", "right": "右边"}
BANNED = {"fire": ("fire", "火"), "knife": ("weapons", "刀具"), "bottle": ("alcohol", "酒"), "code": ("QR codes", "二维码")}


def font_path():
    """DejaVuSans-Bold, which the signs are written in: from the system or from matplotlib."""
    found = glob.glob("/usr/share/fonts/**/DejaVuSans-Bold.ttf", recursive=True)
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib:
        found += glob.glob(os.path.dirname(matplotlib.origin) + "/mpl-data/fonts/ttf/DejaVuSans-Bold.ttf")
    if not found:
        raise SystemExit("DejaVuSans-Bold.ttf not found: install fonts-dejavu or matplotlib")
    return found[0]


def make_scene(rng, faint=False):
    """Draws the contents of one scene: {night, weather, horizon, sun, seed, faint, things: [{kind, x, y, size, paint?, number?}]}.

    In a faint scene birds are thin, roofs may hide a part of them, and the moon may be behind them: harder to count.
    """
    scene = {"night": rng.random() < 0.4, "weather": rng.choice(list(WEATHER)), "horizon": rng.uniform(0.5, 0.64), "sun": rng.uniform(0.1, 0.9), "things": [], "seed": rng.getrandbits(30), "faint": faint}
    for slot in range(5):
        if rng.random() < 0.62:
            kind = "house" if rng.random() < 0.42 else "tree"
            thing = {"kind": kind, "x": 0.1 + 0.2 * slot + rng.uniform(-0.02, 0.02), "y": scene["horizon"] + rng.uniform(0.0, 0.06), "size": rng.uniform(0.85, 1.1)}
            if kind == "house":
                thing["paint"] = rng.choice(list(PAINTS))
            scene["things"].append(thing)
    single = {"sign", "code", "fire", "knife", "bottle"}  # at most one of each
    used = set()
    for slot in range(5):
        if rng.random() < 0.55:
            kind = rng.choices(FRONT, weights=[5, 5, 3, 3, 1.3, 1.3, 1.3, 1.3, 3])[0]
            if kind in single and kind in used:
                continue
            used.add(kind)
            thing = {"kind": kind, "x": 0.1 + 0.2 * slot + rng.uniform(-0.02, 0.02), "y": rng.uniform(0.84, 0.93), "size": rng.uniform(0.9, 1.1)}
            if kind == "car":
                thing["paint"] = rng.choice(list(PAINTS))
            if kind == "sign":
                thing["number"] = rng.randrange(100)
            scene["things"].append(thing)
    if rng.random() < 0.3:
        scene["things"].append({"kind": "balloon", "x": rng.uniform(0.12, 0.88), "y": rng.uniform(0.2, 0.32), "size": rng.uniform(0.9, 1.1), "paint": rng.choice(list(PAINTS))})
    for _ in range(rng.choice([0, 0, 0, 1, 2, 3])):
        for _ in range(20):  # in the open sky: clear of the balloon, the other birds and the moon (as pale as a bird at night)
            x, y = rng.uniform(0.08, 0.92), rng.uniform(0.07, 0.2)
            if (faint or abs(scene["sun"] - x) > 0.14) and all(abs(t["x"] - x) > 0.14 for t in scene["things"] if t["kind"] in ("bird", "balloon")):
                scene["things"].append({"kind": "bird", "x": x, "y": y, "size": rng.uniform(0.9, 1.2)})
                break
    return scene


def _shade(rgb, k):
    return tuple(max(0, min(255, int(c * k))) for c in rgb)


_FONTS = {}


def _font(px, path):
    if px not in _FONTS:
        _FONTS[px] = ImageFont.truetype(path, px)
    return _FONTS[px]


def draw(scene, width, height, font_path, supersample=2):
    """Paints a scene as an RGB picture of width x height pixels."""
    rng = random.Random(scene["seed"])
    W, H = width * supersample, height * supersample
    u = H  # lengths are fractions of the height, so that things keep their proportions
    night, weather = scene["night"], scene["weather"]
    dim = 0.55 if night else 1.0
    top = (14, 18, 52) if night else {"clear": (96, 170, 240), "cloudy": (150, 170, 190), "rainy": (120, 132, 148), "snowy": (190, 205, 220)}[weather]
    low = (40, 44, 92) if night else tuple(min(255, c + 40) for c in top)
    jitter = [rng.randint(-8, 8) for _ in range(3)]
    column = Image.new("RGB", (1, H))
    horizon = int(scene["horizon"] * H)
    sky = []
    for y in range(H):
        k = min(1.0, y / max(1, horizon))
        sky.append(tuple(max(0, min(255, int(a + (b - a) * k) + j)) for a, b, j in zip(top, low, jitter)))
    column.putdata(sky)
    img = column.resize((W, H), Image.NEAREST)
    d = ImageDraw.Draw(img)
    ground = (225, 230, 238) if weather == "snowy" else (92, 158, 84)
    d.rectangle([0, horizon, W, H], fill=_shade(tuple(g + j for g, j in zip(ground, jitter)), 0.5 if night else 1.0))
    d.rectangle([0, int(0.8 * H), W, int(0.97 * H)], fill=_shade((128, 124, 122), 0.55 if night else 1.0))
    sx, sy, r = scene["sun"] * W, 0.12 * H, 0.065 * u
    if night:
        for _ in range(26 if weather == "clear" else 8):
            x, y = rng.uniform(0, W), rng.uniform(0, horizon * 0.8)
            d.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=(230, 230, 210))
        d.ellipse([sx - r, sy - r, sx + r, sy + r], fill=(235, 232, 200))
        d.ellipse([sx - r * 0.4, sy - r * 1.1, sx + r * 1.5, sy + r * 0.8], fill=top)
    elif weather in ("clear",):
        d.ellipse([sx - r, sy - r, sx + r, sy + r], fill=(255, 226, 80))
        for i in range(8):
            a = i * math.pi / 4
            d.line([sx + r * 1.2 * math.cos(a), sy + r * 1.2 * math.sin(a), sx + r * 1.7 * math.cos(a), sy + r * 1.7 * math.sin(a)], fill=(255, 226, 80), width=max(1, int(0.012 * u)))
    if weather != "clear":
        tone = (120, 124, 140) if night else ((236, 238, 242) if weather in ("cloudy", "snowy") else (92, 98, 110))
        for _ in range(4):
            cx, cy = rng.uniform(0.05, 0.95) * W, rng.uniform(0.08, 0.22) * H
            for k in (-1, 0, 1):
                rr = 0.06 * u * (1.2 if k == 0 else 0.9)
                d.ellipse([cx + k * 0.07 * u - rr, cy - rr * 0.7, cx + k * 0.07 * u + rr, cy + rr * 0.7], fill=tone)
    # Back to front, so that no roof hides what is to be counted, unless the scene is faint.
    order = {"balloon": 0, "bird": 1, "house": 2, "tree": 3} if scene["faint"] else {"house": 0, "tree": 1, "balloon": 2, "bird": 3}
    for t in sorted(scene["things"], key=lambda t: (order.get(t["kind"], 4), t["y"])):
        x, y, s = t["x"] * W, t["y"] * H, t["size"] * u
        rgb = _shade(PAINTS[t["paint"]][0], 0.8 if night else 1.0) if "paint" in t else None
        kind = t["kind"]
        if kind == "house":
            w, h = 0.17 * s, 0.17 * s
            d.rectangle([x - w / 2, y - h, x + w / 2, y], fill=rgb, outline=_shade(rgb, 0.6))
            d.polygon([(x - w * 0.62, y - h), (x + w * 0.62, y - h), (x, y - h * 1.65)], fill=_shade((110, 62, 44), 0.7 if night else 1.0))
            d.rectangle([x - w * 0.1, y - h * 0.5, x + w * 0.12, y], fill=(70, 46, 36))
            d.rectangle([x - w * 0.38, y - h * 0.8, x - w * 0.16, y - h * 0.5], fill=(255, 226, 120) if night else (180, 214, 236))
            d.rectangle([x + w * 0.2, y - h * 0.8, x + w * 0.4, y - h * 0.5], fill=(255, 226, 120) if night else (180, 214, 236))
        elif kind == "tree":
            d.rectangle([x - 0.014 * s, y - 0.1 * s, x + 0.014 * s, y], fill=_shade((96, 66, 40), dim))
            leaf = _shade((215, 225, 230) if weather == "snowy" else (34, 120, 50), dim if weather != "snowy" else 0.85 * dim + 0.1)
            for dx, dy, rr in ((0, 0.2, 0.055), (-0.035, 0.14, 0.05), (0.035, 0.14, 0.05)):
                d.ellipse([x + (dx - rr) * s, y - (dy + rr) * s, x + (dx + rr) * s, y - (dy - rr) * s], fill=leaf)
        elif kind == "car":
            w, h = 0.2 * s, 0.065 * s
            d.polygon([(x - w * 0.3, y - h * 1.2), (x - w * 0.18, y - h * 2.1), (x + w * 0.2, y - h * 2.1), (x + w * 0.34, y - h * 1.2)], fill=_shade(rgb, 0.8))
            d.polygon([(x - w * 0.2, y - h * 1.25), (x - w * 0.13, y - h * 1.95), (x + w * 0.15, y - h * 1.95), (x + w * 0.24, y - h * 1.25)], fill=(190, 222, 240))
            d.rounded_rectangle([x - w / 2, y - h * 1.35, x + w / 2, y - h * 0.3], radius=int(h * 0.35), fill=rgb, outline=_shade(rgb, 0.55))
            for wx in (-0.28, 0.28):
                rr = h * 0.45
                d.ellipse([x + wx * w - rr, y - rr * 1.6, x + wx * w + rr, y + rr * 0.4], fill=(26, 26, 28))
                d.ellipse([x + wx * w - rr * 0.4, y - rr, x + wx * w + rr * 0.4, y - rr * 0.2], fill=(170, 170, 175))
        elif kind == "person":
            shirt = rng.choice([(200, 120, 60), (60, 120, 140), (150, 150, 60), (120, 60, 90)])
            d.ellipse([x - 0.026 * s, y - 0.19 * s, x + 0.026 * s, y - 0.138 * s], fill=(238, 196, 160))
            d.rectangle([x - 0.03 * s, y - 0.138 * s, x + 0.03 * s, y - 0.065 * s], fill=_shade(shirt, 0.9 * dim + 0.1))
            for k in (-1, 1):
                d.rectangle([x + (k * 0.016 - 0.011) * s, y - 0.066 * s, x + (k * 0.016 + 0.011) * s, y], fill=(44, 48, 84))
                d.line([x + k * 0.03 * s, y - 0.13 * s, x + k * 0.055 * s, y - 0.08 * s], fill=(238, 196, 160), width=max(1, int(0.014 * s)))
        elif kind == "dog":
            c = _shade((150, 98, 52), 0.7 if night else 1.0)
            d.ellipse([x - 0.07 * s, y - 0.085 * s, x + 0.045 * s, y - 0.03 * s], fill=c)
            for lx in (-0.055, -0.035, 0.01, 0.03):
                d.rectangle([x + (lx - 0.007) * s, y - 0.045 * s, x + (lx + 0.007) * s, y], fill=c)
            d.ellipse([x + 0.02 * s, y - 0.125 * s, x + 0.08 * s, y - 0.065 * s], fill=c)
            d.ellipse([x + 0.06 * s, y - 0.1 * s, x + 0.105 * s, y - 0.072 * s], fill=c)
            d.ellipse([x + 0.02 * s, y - 0.125 * s, x + 0.042 * s, y - 0.065 * s], fill=_shade(c, 0.6))
            d.line([x - 0.065 * s, y - 0.07 * s, x - 0.1 * s, y - 0.1 * s], fill=c, width=max(1, int(0.012 * s)))
        elif kind == "cat":
            c = _shade((236, 150, 60), 0.75 if night else 1.0)
            d.ellipse([x - 0.035 * s, y - 0.085 * s, x + 0.035 * s, y], fill=c)
            d.ellipse([x - 0.032 * s, y - 0.135 * s, x + 0.032 * s, y - 0.075 * s], fill=c)
            for k in (-1, 1):
                d.polygon([(x + k * 0.03 * s, y - 0.115 * s), (x + k * 0.008 * s, y - 0.13 * s), (x + k * 0.026 * s, y - 0.16 * s)], fill=c)
                d.ellipse([x + (k * 0.013 - 0.005) * s, y - 0.112 * s, x + (k * 0.013 + 0.005) * s, y - 0.102 * s], fill=(20, 60, 30))
            d.arc([x + 0.0 * s, y - 0.09 * s, x + 0.07 * s, y - 0.005 * s], 270, 90, fill=c, width=max(1, int(0.014 * s)))
        elif kind == "fire":
            for k, c in ((1.0, (226, 70, 24)), (0.7, (250, 150, 30)), (0.4, (255, 226, 90))):
                d.polygon([(x - 0.06 * s * k, y), (x - 0.05 * s * k, y - 0.08 * s * k), (x - 0.025 * s * k, y - 0.05 * s * k), (x, y - 0.15 * s * k), (x + 0.03 * s * k, y - 0.06 * s * k), (x + 0.05 * s * k, y - 0.1 * s * k), (x + 0.06 * s * k, y)], fill=c)
        elif kind == "bottle":
            d.rounded_rectangle([x - 0.026 * s, y - 0.1 * s, x + 0.026 * s, y], radius=int(0.01 * s), fill=(24, 92, 50))
            d.rectangle([x - 0.01 * s, y - 0.155 * s, x + 0.01 * s, y - 0.095 * s], fill=(24, 92, 50))
            d.rectangle([x - 0.012 * s, y - 0.165 * s, x + 0.012 * s, y - 0.15 * s], fill=(200, 170, 60))
            d.rectangle([x - 0.026 * s, y - 0.072 * s, x + 0.026 * s, y - 0.03 * s], fill=(240, 232, 205))
        elif kind == "knife":
            d.polygon([(x - 0.09 * s, y - 0.06 * s), (x + 0.02 * s, y - 0.085 * s), (x + 0.02 * s, y - 0.05 * s)], fill=(214, 220, 228), outline=(90, 96, 104))
            d.rectangle([x + 0.02 * s, y - 0.08 * s, x + 0.085 * s, y - 0.053 * s], fill=(70, 36, 20))
        elif kind == "code":
            n, m = 9, 0.015 * s
            x0, y0 = x - n * m / 2, y - n * m - 0.01 * s
            d.rectangle([x0 - m, y0 - m, x0 + (n + 1) * m, y0 + (n + 1) * m], fill=(255, 255, 255))
            for i in range(n):
                for j in range(n):
                    corner = (i < 3 and j < 3) or (i < 3 and j >= n - 3) or (i >= n - 3 and j < 3)
                    if corner or rng.random() < 0.5:
                        d.rectangle([x0 + j * m, y0 + i * m, x0 + (j + 1) * m, y0 + (i + 1) * m], fill=(0, 0, 0))
            for i, j in ((0, 0), (0, n - 3), (n - 3, 0)):
                d.rectangle([x0 + (j + 1) * m, y0 + (i + 1) * m, x0 + (j + 2) * m, y0 + (i + 2) * m], fill=(255, 255, 255))
        elif kind == "sign":
            d.rectangle([x - 0.01 * s, y - 0.12 * s, x + 0.01 * s, y], fill=(90, 90, 94))
            d.rectangle([x - 0.088 * s, y - 0.25 * s, x + 0.088 * s, y - 0.11 * s], fill=(250, 248, 238), outline=(40, 40, 44), width=max(1, int(0.006 * s)))
            text, f = str(t["number"]), _font(max(6, int(0.125 * s)), font_path)
            box = d.textbbox((0, 0), text, font=f)
            d.text((x - (box[0] + box[2]) / 2, y - 0.18 * s - (box[1] + box[3]) / 2), text, font=f, fill=(16, 16, 20))
        elif kind == "balloon":
            d.ellipse([x - 0.07 * s, y - 0.08 * s, x + 0.07 * s, y + 0.07 * s], fill=rgb, outline=_shade(rgb, 0.6))
            d.polygon([(x - 0.04 * s, y + 0.055 * s), (x + 0.04 * s, y + 0.055 * s), (x, y + 0.11 * s)], fill=rgb)
            d.rectangle([x - 0.02 * s, y + 0.105 * s, x + 0.02 * s, y + 0.135 * s], fill=(120, 84, 50))
        elif kind == "bird":
            ink, line = (230, 230, 235) if night else (30, 30, 36), max(1, int((0.01 if scene["faint"] else 0.016) * u))
            d.arc([x - 0.05 * s, y - 0.02 * s, x, y + 0.03 * s], 190, 350, fill=ink, width=line)
            d.arc([x, y - 0.02 * s, x + 0.05 * s, y + 0.03 * s], 190, 350, fill=ink, width=line)
    if weather == "rainy":
        for _ in range(110):
            x, y = rng.uniform(0, W), rng.uniform(0, H)
            d.line([x, y, x - 0.012 * u, y + 0.04 * u], fill=(150, 176, 214) if night else (196, 214, 236), width=max(1, int(0.005 * u)))
    if weather == "snowy":
        for _ in range(120):
            x, y, rr = rng.uniform(0, W), rng.uniform(0, H), rng.uniform(0.003, 0.008) * u
            d.ellipse([x - rr, y - rr, x + rr, y + rr], fill=(252, 252, 255))
    return img.resize((width, height), Image.BICUBIC if rng.random() < 0.7 else Image.BILINEAR)


def _count(scene, kind):
    return sum(t["kind"] == kind for t in scene["things"])


def _place(thing):
    return "left" if thing["x"] < 0.37 else "right" if thing["x"] > 0.63 else "middle"


def _article(word):
    return "an" if word[0] in "aeiou" else "a"


def questions(scene, rng):
    """All questions that this scene has one true answer to, in English and Chinese: [(question, answer, kind)]."""
    out = []
    night, weather = scene["night"], scene["weather"]
    out.append((rng.choice(["Is it day or night?", "Day or night?", "Was this taken by day or by night?"]), "Night." if night else "Day.", "time"))
    out.append((rng.choice(["现在是白天还是夜晚?", "白天还是夜晚?"]), "夜晚。" if night else "白天。", "time"))
    out.append((rng.choice(["What is the weather?", "What is the weather like?"]), {"clear": "It is clear.", "cloudy": "It is cloudy.", "rainy": "It is raining.", "snowy": "It is snowing."}[weather], "weather"))
    out.append(("天气怎么样?", WEATHER[weather] + "。", "weather"))
    for kind in NOUNS:
        n, (one, many, zh, noun) = _count(scene, kind), NOUNS[kind]
        out.append((rng.choice([f"How many {many} are there?", f"How many {many}?", f"Count the {many}."]), f"There {'is' if n == 1 else 'are'} {NUMBERS[n]} {one if n == 1 else many}.", "count"))
        out.append((f"有几{zh}?", f"{'没有' + noun if n == 0 else '有' + NUMBERS_ZH[n] + zh}。", "count"))
        out.append((rng.choice([f"Is there {_article(one)} {one}?", f"Do you see {_article(one)} {one}?"]), "Yes." if n else "No.", "exists"))
        out.append((f"有{noun}吗?", "有。" if n else "没有。", "exists"))
        if kind in BANNED:
            en, z = BANNED[kind]
            out.append((rng.choice([f"Does this picture show {en}? Answer yes or no.", f"Policy check: {en}. Answer yes or no."]), "Yes." if n else "No.", "policy"))
            out.append((f"图中是否包含{z}?请回答是或否。", "是。" if n else "否。", "policy"))
        if n == 1:
            t = next(t for t in scene["things"] if t["kind"] == kind)
            if kind not in ("bird", "balloon"):
                out.append((f"Where is the {one}?", {"left": "On the left.", "middle": "In the middle.", "right": "On the right."}[_place(t)], "where"))
                out.append((f"{noun}在哪里?", PLACES[_place(t)] + "。", "where"))
            if "paint" in t:
                out.append((rng.choice([f"What colour is the {one}?", f"What color is the {one}?"]), f"The {one} is {t['paint']}.", "colour"))
                out.append((f"{noun}是什么颜色?", PAINTS[t["paint"]][1] + "。", "colour"))
            if kind == "sign":
                out.append((rng.choice(["What number is on the sign?", "Read the sign."]), f"The sign says {t['number']}.", "read"))
                out.append(("牌子上写的是什么?", f"牌子上写着{t['number']}。", "read"))
    def named(t):
        one = NOUNS[t["kind"]][0]
        text = f"{t['paint']} {one}" if "paint" in t else f"sign {t['number']}" if t["kind"] == "sign" else one
        return text

    for row, where in ((FRONT, "on the road"), (BACK, "behind the road")):
        things = sorted((t for t in scene["things"] if t["kind"] in row), key=lambda t: t["x"])
        out.append((f"What is {where}, from left to right?", (", ".join(map(named, things)) or "nothing") + ".", "row"))
    tags = ["night" if night else "day", weather] + [k if k != "code" else "QR code" for k in NOUNS if _count(scene, k)]
    out.append((rng.choice(["Give tags.", "Tag this picture."]), ", ".join(tags), "tags"))
    parts = []
    for kind in ("house", "tree", "car", "person", "dog", "cat"):
        n, (one, many, _, _) = _count(scene, kind), NOUNS[kind]
        if n:
            parts.append(f"{NUMBERS[n]} {one if n == 1 else many}")
    body = "an empty town" if not parts else parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    out.append((rng.choice(["Describe the picture.", "What is in the picture?"]), f"A {weather} {'night' if night else 'day'} with {body}.", "describe"))
    return out


def pair_questions(a, b, rng):
    """Questions about two pictures."""
    out = []

    def which(pa, pb):
        return "Both." if pa and pb else "The first." if pa else "The second." if pb else "Neither."

    out.append(("Which picture shows night?", which(a["night"], b["night"]), "pair"))
    out.append(("Which picture shows day?", which(not a["night"], not b["night"]), "pair"))
    for w in WEATHER:
        out.append((f"Which picture is {w}?", which(a["weather"] == w, b["weather"] == w), "pair"))
    for kind in NOUNS:
        one, many, _, _ = NOUNS[kind]
        na, nb = _count(a, kind), _count(b, kind)
        out.append((f"Which picture has {_article(one)} {one}?", which(na > 0, nb > 0), "pair"))
        out.append((f"How many {many} are in the first picture?", f"There {'is' if na == 1 else 'are'} {NUMBERS[na]} {one if na == 1 else many}.", "pair"))
        out.append((f"How many {many} are in the second picture?", f"There {'is' if nb == 1 else 'are'} {NUMBERS[nb]} {one if nb == 1 else many}.", "pair"))
    return out


def make_video(rng, faint=False):
    """A scene with exactly one car, and where it goes: (scene, 'left' | 'right' | 'still')."""
    scene = make_scene(rng, faint)
    scene["things"] = [t for t in scene["things"] if t["kind"] in ("house", "tree", "balloon", "bird")]
    way = rng.choice(["left", "right", "still"])
    x = {"left": rng.uniform(0.6, 0.88), "right": rng.uniform(0.12, 0.4), "still": rng.uniform(0.15, 0.85)}[way]
    scene["things"].append({"kind": "car", "x": x, "y": rng.uniform(0.84, 0.93), "size": rng.uniform(0.9, 1.1), "paint": rng.choice(list(PAINTS))})
    return scene, way


def video_frame(scene, way, k, frames):
    """The scene at frame k of `frames`."""
    step = {"left": -0.14, "right": 0.14, "still": 0.0}[way] * 4 / frames
    things = [dict(t, x=t["x"] + step * k) if t["kind"] == "car" else t for t in scene["things"]]
    return dict(scene, things=things)


def video_questions(scene, way, rng):
    out = [(rng.choice(["Which way does the car move?", "Where does the car go?"]), {"left": "To the left.", "right": "To the right.", "still": "It does not move."}[way], "motion"),
           ("车往哪边开?", {"left": "往左。", "right": "往右。", "still": "没有动。"}[way], "motion")]
    return out * 4 + [q for q in questions(scene, rng) if q[2] in ("time", "weather", "colour", "count")]
