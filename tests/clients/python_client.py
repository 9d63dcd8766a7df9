"""The openai package for Python, unmodified, against a server of the demo model.

usage: python_client.py BASE_URL EVAL_DIR      prints a line a case; the last is 'N passed, N failed'
"""
import base64
import http.server
import json
import pathlib
import sys
import threading
import urllib.request

import openai

BASE, EVAL = sys.argv[1], pathlib.Path(sys.argv[2])
TRUTH = json.loads((EVAL / "truth.json").read_text(encoding="utf-8"))
client = openai.OpenAI(base_url=BASE + "/v1", api_key="key-of-the-clients-test", max_retries=0)
cases = []


def case(function):
    cases.append(function)
    return function


def picture(index):
    entry = TRUTH[index]
    kind = "jpeg" if entry["image"].endswith("jpg") else "png"
    data = base64.b64encode((EVAL / entry["image"]).read_bytes()).decode()
    return f"data:image/{kind};base64,{data}", [(q["question"], q["answer"]) for q in entry["questions"]]


def ask(question, uri=None, **more):
    parts = [{"type": "text", "text": question}]
    if uri:
        parts.insert(0, {"type": "image_url", "image_url": {"url": uri, "detail": "auto"}})
    return client.chat.completions.create(model="toytown", messages=[{"role": "user", "content": parts}], **more)


@case
def models():
    assert [m.id for m in client.models.list()] == ["toytown"]
    assert client.models.retrieve("toytown").object == "model"


@case
def chat_with_pictures():
    for index in (0, 3):
        uri, questions = picture(index)
        for question, answer in questions[:3]:
            got = ask(question, uri, max_tokens=64)
            assert got.choices[0].message.content == answer, (got, answer)
            assert got.choices[0].message.role == "assistant"
            assert got.choices[0].finish_reason == "stop"
            assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert got.usage.prompt_tokens_details.cached_tokens > 0
    assert got.model_extra["vision"][0]["source"] == "memory"


@case
def streaming_with_usage():
    uri, questions = picture(4)
    text, usage, finish = "", None, None
    with ask(questions[0][0], uri, stream=True, stream_options={"include_usage": True}, max_completion_tokens=64) as stream:
        for chunk in stream:
            if chunk.usage:
                usage = chunk.usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    assert (text, finish) == (questions[0][1], "stop"), text
    assert usage.completion_tokens > 0


@case
def the_stream_helper():
    uri, questions = picture(5)
    if not hasattr(client.chat.completions, "stream"):
        return
    with client.chat.completions.stream(model="toytown", messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": questions[0][0]}]}]) as stream:
        done = [event for event in stream if event.type == "content.done"]
        final = stream.get_final_completion()
    assert done[0].content == questions[0][1]
    assert final.choices[0].message.content == questions[0][1]


@case
def a_conversation():
    uri, questions = picture(6)
    messages = [{"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": questions[0][0]}]}]
    first = client.chat.completions.create(model="toytown", messages=messages)
    messages += [first.choices[0].message, {"role": "user", "content": questions[1][0]}]
    second = client.chat.completions.create(model="toytown", messages=messages)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1
    assert second.choices[0].message.content


@case
def logprobs():
    uri, questions = picture(7)
    got = ask(questions[0][0], uri, logprobs=True, top_logprobs=3)
    tokens = got.choices[0].logprobs.content
    assert len(tokens) == got.usage.completion_tokens - 1  # the token that ends it is no part of the text
    assert all(len(t.top_logprobs) == 3 and t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob for t in tokens)
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == questions[0][1]


@case
def json_schema():
    uri, _ = picture(8)
    schema = {"type": "object", "properties": {"day": {"type": "boolean"}, "cars": {"type": "integer", "minimum": 0, "maximum": 9}},
              "required": ["day", "cars"], "additionalProperties": False}
    got = ask("Answer in JSON.", uri, max_tokens=60, response_format={
        "type": "json_schema", "json_schema": {"name": "scene", "strict": True, "schema": schema}})
    value = json.loads(got.choices[0].message.content)
    assert set(value) == {"day", "cars"} and isinstance(value["day"], bool) and 0 <= value["cars"] <= 9
    got = ask("Answer in JSON.", uri, max_tokens=40, response_format={"type": "json_object"})
    assert isinstance(json.loads(got.choices[0].message.content), dict)


@case
def parsing_into_a_class():
    import pydantic

    class Scene(pydantic.BaseModel):
        time: str = pydantic.Field(max_length=12)
        cars: int = pydantic.Field(ge=0, le=9)

    uri, _ = picture(9)
    parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
    got = parse(model="toytown", max_tokens=80, response_format=Scene, messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "Answer in JSON."}]}])
    assert isinstance(got.choices[0].message.parsed, Scene)


@case
def errors_have_their_classes():
    def raises(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"expected {kind.__name__}")
    error = raises(openai.BadRequestError, lambda: ask("x", temperature=9))
    assert error.param == "temperature" and error.status_code == 400, error
    assert raises(openai.NotFoundError, lambda: client.chat.completions.create(
        model="other", messages=[{"role": "user", "content": "x"}])).param == "model"
    stranger = openai.OpenAI(base_url=BASE + "/v1", api_key="not-a-key-of-theirs", max_retries=0)
    assert raises(openai.AuthenticationError, lambda: stranger.models.list()).code == "invalid_api_key"
    assert raises(openai.BadRequestError, lambda: ask("x", tools=[
        {"type": "function", "function": {"name": "f", "parameters": {}}}])).param == "tools"
    slow = client.with_options(default_headers={"x-request-timeout-ms": "150"})
    raises(openai.InternalServerError, lambda: slow.chat.completions.create(
        model="toytown", messages=[{"role": "user", "content": "x"}], max_tokens=3500, extra_body={"ignore_eos": True}))


@case
def retries():
    """503 with Retry-After is tried again by the SDK, and then answered."""
    seen = []

    class BusyAtFirst(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            if len(seen) == 1:
                self.send_response(503)
                self.send_header("Retry-After", "0")
                body = b"{}"
            else:
                request = urllib.request.Request(BASE + self.path, headers={"Authorization": self.headers["Authorization"]})
                with urllib.request.urlopen(request) as answer:
                    body = answer.read()
                self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BusyAtFirst)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    try:
        patient = openai.OpenAI(base_url=f"http://127.0.0.1:{between.server_address[1]}/v1", api_key="key-of-the-clients-test",
                                max_retries=2)
        assert [m.id for m in patient.models.list()] == ["toytown"]
        assert len(seen) == 2
    finally:
        between.shutdown()
        between.server_close()


@case
def extra_parameters():
    uri, questions = picture(10)
    got = ask(questions[0][0], uri, temperature=1.5, top_p=1, seed=1, stop=["zzz"], user="me", presence_penalty=0.1,
              frequency_penalty=0.1, logit_bias={"5": -100}, n=2, max_tokens=8,
              extra_body={"top_k": 0, "min_p": 0.01, "repetition_penalty": 1.0, "mm_processor_kwargs": {"max_pixels": 50176}})
    assert len(got.choices) == 2
    assert got.model_extra["vision"][0]["tokens"] <= 64


@case
def leaving_a_stream():
    stream = ask("Hello", stream=True, max_tokens=1000, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    assert client.models.list().data


def main():
    failed = 0
    for function in cases:
        try:
            function()
            print(f"ok      {function.__name__}")
        except Exception as error:  # every case is reported
            failed += 1
            print(f"FAILED  {function.__name__}: {type(error).__name__}: {str(error)[:600]}")
    print(f"openai {openai.__version__} (Python): {len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
