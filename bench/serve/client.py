"""One streamed chat request to an OpenAI-compatible server, and when each of its tokens came.

Times are seconds of time.monotonic. Thread contract: a Client may be used from many threads; each call has a connection of its own.
"""
import dataclasses
import http.client
import json
import time
import urllib.parse

import pictures


@dataclasses.dataclass
class Outcome:
    planned: float = 0.0       # when it was due: latencies count from here
    sent: float = 0.0
    status: int = 0            # of HTTP; 0: no answer
    error: str = ""
    first: float = 0.0         # when the first token came; 0: none did
    last: float = 0.0
    gaps: list = dataclasses.field(default_factory=list)  # between tokens
    tokens: int = 0
    prompt_tokens: int = 0     # 0: the server does not tell
    cached_tokens: int = 0
    background: bool = False

    @property
    def ok(self):
        return self.status == 200 and self.first > 0 and not self.error

    @property
    def ttft(self):
        return self.first - self.planned

    @property
    def per_token(self):
        """Mean time of a token after the first; None for answers of one token."""
        return (self.last - self.first) / (self.tokens - 1) if self.tokens > 1 else None


class Client:
    def __init__(self, url, model, side=448, key=None, timeout=600):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.secure = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), parts.scheme == "https"
        self.model, self.side, self.timeout = model, side, timeout
        self.headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def _connect(self):
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=self.timeout)

    def get(self, path):
        connection = self._connect()
        try:
            connection.request("GET", path, headers=self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name, **labels):
        """One sample of /metrics; None where the server has no such thing."""
        status, text = self.get("/metrics")
        if status != 200:
            return None
        for line in text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                return float(value)
        return None

    def body(self, planned):
        """The request as JSON. logprobs make every token an event of its own, also one without text; ignore_eos makes
        all answers as long as planned. chiasm, vLLM and llama.cpp's server know both."""
        parts = [{"type": "image_url", "image_url": {"url": pictures.data_uri(self.side, seed)}} for seed in planned.pictures]
        return json.dumps({"model": self.model, "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": planned.question}]}],
                           "max_tokens": planned.max_tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
                           "ignore_eos": True, "logprobs": True})

    def ask(self, planned, due, body=None):
        """Sends the request now and reads the answer to its end. `due`: when it should have been sent."""
        out = Outcome(planned=due, background=planned.background)
        body = body or self.body(planned)
        connection = self._connect()
        out.sent = time.monotonic()
        try:
            connection.request("POST", "/v1/chat/completions", body, self.headers)
            response = connection.getresponse()
            out.status = response.status
            if response.status != 200:
                out.error = response.read(500).decode(errors="replace")
                return out
            for line in response:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    take(out, json.loads(line[6:]), time.monotonic())
        except (OSError, http.client.HTTPException, ValueError) as error:
            out.error = f"{type(error).__name__}: {error}"
        finally:
            connection.close()
        return out


def take(out, event, now):
    """Counts one event of a stream."""
    if event.get("error"):
        out.error = json.dumps(event["error"])
    usage = event.get("usage")
    if usage:
        out.tokens = usage.get("completion_tokens", out.tokens)
        out.prompt_tokens = usage.get("prompt_tokens", 0)
        out.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    for choice in event.get("choices", []):
        delta = choice.get("delta") or {}
        if not delta.get("content") and not (choice.get("logprobs") or {}).get("content"):
            continue
        if out.first == 0:
            out.first = now
        else:
            out.gaps.append(now - out.last)
        out.last = now
        if not usage:
            out.tokens = max(out.tokens, len(out.gaps) + 1)
