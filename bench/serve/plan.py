"""Scenarios as lists of planned requests. When a request is due is decided before the first one is sent, by a seed.

A plan knows nothing of the server: the load is open-loop, so a slow server is asked as often as a fast one.
"""
import dataclasses
import random

QUESTIONS = ["Describe the picture.", "Day or night?", "What is the weather?", "How many houses are there?", "Is there a tree?",
             "What colour is the car?", "Is there a bird?", "What does the sign say?", "Where is the dog?", "Is it raining?"]


@dataclasses.dataclass(frozen=True)
class Planned:
    at: float              # seconds after the scenario's beginning at which it is due
    pictures: tuple = ()   # seeds of the pictures it shows
    question: str = QUESTIONS[0]
    max_tokens: int = 10
    background: bool = False  # there to be in the way: not in the figures of the others


def arrivals(count, rate, seed):
    """`count` times of a Poisson process of `rate` a second."""
    dice, now, out = random.Random(seed), 0.0, []
    for _ in range(count):
        now += dice.expovariate(rate)
        out.append(now)
    return out


def one_picture(rate, seed, count=20, tokens=10):
    """One picture, many questions about it."""
    return [Planned(at, (seed,), f"{QUESTIONS[i % len(QUESTIONS)]} ({i})", tokens) for i, at in enumerate(arrivals(count, rate, seed))]


def reuse(rate, seed, count=200, share=0.8, tokens=10):
    """`count` pictures, `share` of which were shown before. The first is new, the order follows from the seed."""
    dice = random.Random(seed)
    fresh = [True] * max(1, round(count * (1 - share)))
    known = [False] * (count - len(fresh))
    order = fresh[1:] + known
    dice.shuffle(order)
    seen, out = [], []
    for i, (at, new) in enumerate(zip(arrivals(count, rate, seed), [True, *order])):
        if new:
            seen.append(seed * 1000 + len(seen))
        out.append(Planned(at, (seen[-1] if new else dice.choice(seen),), f"{QUESTIONS[i % len(QUESTIONS)]} ({i})", tokens))
    return out


def many_pictures(rate, seed, count=5, pictures=8, tokens=10):
    """New pictures, many in each request."""
    return [Planned(at, tuple(seed * 1000 + i * pictures + p for p in range(pictures)), QUESTIONS[i % len(QUESTIONS)], tokens)
            for i, at in enumerate(arrivals(count, rate, seed))]


def at_once(seed, questions=5, tokens=10):
    """Several questions at the same moment about a picture that nobody saw."""
    return [Planned(0.0, (seed,), f"{QUESTIONS[i % len(QUESTIONS)]} ({i})", tokens) for i in range(questions)]


def beside_encodes(seed, stream_tokens, first, every, encodes=3):
    """A long stream without a picture; from `first` seconds on a new picture every `every` seconds."""
    plan = [Planned(0.0, (), "Tell a long story.", stream_tokens)]
    plan += [Planned(first + i * every, (seed * 1000 + i,), QUESTIONS[0], 1, background=True) for i in range(encodes)]
    return plan
