// The openai package for Node, unmodified, against a server of the demo model.
//
// usage: node node_client.mjs BASE_URL EVAL_DIR OPENAI_MODULE_DIR      prints a line a case; the last is 'N passed, N failed'
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [base, evalDir, modules] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(modules), "package.json"));
const OpenAI = require("openai").default ?? require("openai");
const version = JSON.parse(fs.readFileSync(path.join(modules, "node_modules/openai/package.json"))).version;
const key = "key-of-the-clients-test";
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 0 });
const truth = JSON.parse(fs.readFileSync(path.join(evalDir, "truth.json")));

function picture(index) {
  const entry = truth[index];
  const kind = entry.image.endsWith("jpg") ? "jpeg" : "png";
  const data = fs.readFileSync(path.join(evalDir, entry.image)).toString("base64");
  return { url: `data:image/${kind};base64,${data}`, questions: entry.questions };
}

function body(question, url, more = {}) {
  const content = [{ type: "text", text: question }];
  if (url) content.unshift({ type: "image_url", image_url: { url } });
  return { model: "toytown", messages: [{ role: "user", content }], ...more };
}
const ask = (question, url, more) => client.chat.completions.create(body(question, url, more));

const cases = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["toytown"]);
  },
  async chatWithPictures() {
    const { url, questions } = picture(1);
    for (const { question, answer } of questions.slice(0, 4)) {
      const got = await ask(question, url, { max_tokens: 64 });
      assert.equal(got.choices[0].message.content, answer);
      assert.equal(got.choices[0].finish_reason, "stop");
    }
    const again = await ask(questions[0].question, url);
    assert.ok(again.usage.prompt_tokens_details.cached_tokens > 0);
    assert.equal(again.vision[0].source, "memory");
  },
  async streamingWithUsage() {
    const { url, questions } = picture(2);
    let text = "", usage;
    const stream = await ask(questions[0].question, url, { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, questions[0].answer);
    assert.ok(usage.completion_tokens > 0);
  },
  async streamHelper() {
    const { url, questions } = picture(3);
    const helper = client.chat.completions.stream ?? client.beta?.chat?.completions?.stream;
    if (!helper) return;
    const owner = client.chat.completions.stream ? client.chat.completions : client.beta.chat.completions;
    const final = await owner.stream(body(questions[0].question, url)).finalContent();
    assert.equal(final, questions[0].answer);
  },
  async logprobs() {
    const { url, questions } = picture(4);
    const got = await ask(questions[0].question, url, { logprobs: true, top_logprobs: 2 });
    const tokens = got.choices[0].logprobs.content;
    assert.equal(tokens.length, got.usage.completion_tokens - 1);  // the token that ends it is no part of the text
    assert.equal(tokens.map((t) => t.token).join(""), got.choices[0].message.content);
    assert.ok(tokens.every((t) => t.top_logprobs.length === 2));
  },
  async jsonSchema() {
    const { url } = picture(5);
    const schema = { type: "object", properties: { night: { type: "boolean" } }, required: ["night"], additionalProperties: false };
    const got = await ask("Answer in JSON.", url, {
      max_tokens: 40, response_format: { type: "json_schema", json_schema: { name: "n", strict: true, schema } } });
    assert.equal(typeof JSON.parse(got.choices[0].message.content).night, "boolean");
  },
  async errorsHaveTheirClasses() {
    await assert.rejects(ask("x", null, { top_p: 7 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "top_p");
    await assert.rejects(client.chat.completions.create({ ...body("x"), model: "other" }), OpenAI.NotFoundError);
    const stranger = new OpenAI({ baseURL: `${base}/v1`, apiKey: "not-a-key-of-theirs", maxRetries: 0 });
    await assert.rejects(async () => { for await (const m of stranger.models.list()) void m; }, OpenAI.AuthenticationError);
  },
  async retries() {
    let calls = 0;
    const patient = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, maxRetries: 2, fetch: (...all) => {
      calls += 1;
      if (calls === 1) return Promise.resolve(new Response("{}", { status: 503, headers: { "retry-after": "0" } }));
      return fetch(...all);
    } });
    assert.equal((await patient.models.retrieve("toytown")).id, "toytown");
    assert.equal(calls, 2);
  },
  async aborting() {
    const stream = await ask("Hello", null, { stream: true, max_tokens: 1000, ignore_eos: true });
    for await (const chunk of stream) {
      void chunk;
      stream.controller.abort();
      break;
    }
    assert.ok((await client.models.list()).data.length);
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${String(error?.message ?? error).slice(0, 600)}`);
  }
}
console.log(`openai ${version} (Node ${process.version}): ${Object.keys(cases).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
