// A stand-in for `chiasm serve`, for working on the page and for what a real server does not do on demand (being
// full, failing in mid-stream, forgetting a picture). It serves web/ with the real Content-Security-Policy and
// answers questions about the pictures of models/toytown/eval from truth.json, with the timing and usage of a real
// server. Node 20, no packages.
//
//   node tests/web/fake_server.mjs [--port 8080] [--key KEY] [--pace 1] [--room 0]
//
// Questions with a meaning: "!fail" fails alone, "!busy" gets 503 once, "!late" gets
// "overloaded" in the stream once, "!cut" breaks the stream, "!slow" takes 30 s, "!long" is cut at its length.
// POST /fake/forget drops all picture ids. --room N: work on N requests at once, and answer 503 to others.
import { readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compare, digest, plain, readTruth } from './truth.mjs';

const web = join(dirname(fileURLToPath(import.meta.url)), '../../web');

export const kPolicy =
  "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; " +
  "require-trusted-types-for 'script'";
const kTypes = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
};
const kBlock = 16;
const kSystemTokens = 16;
const kContext = 16000; // letters of a question, more are too many tokens

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Failure extends Error {
  constructor(status, message, { param = null, code = null, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, param, code, retryAfter });
  }
  get json() {
    return {
      error: {
        message: this.message,
        type: this.status < 500 ? 'invalid_request_error' : 'server_error',
        param: this.param,
        code: this.code,
      },
    };
  }
}

const full = () => new Failure(503, 'the server is full', { code: 'overloaded', retryAfter: 1 });

export class FakeServer {
  #truth = readTruth();
  #pictures = new Map(); // id → {truth, tokens}
  #prefixes = new Set();
  #busy = new Set();
  #working = 0; // requests
  #began = Date.now();
  counts = {
    running: 0,
    waiting: 0,
    finished: 0,
    failed: 0,
    queried: 0,
    hit: 0,
    memoryHits: 0,
    encoded: 0,
    prompt: 0,
    generated: 0,
  };

  constructor({ key = '', pace = 1, room = Infinity } = {}) {
    this.key = key;
    this.room = room;
    this.pace = pace;
    this.server = createServer((request, response) => this.#handle(request, response));
  }

  async listen(port = 0) {
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    return `http://localhost:${this.server.address().port}`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  async #handle(request, response) {
    const path = new URL(request.url, 'http://localhost').pathname;
    const works = request.method === 'POST' && path.startsWith('/v1/');
    this.#working += works ? 1 : 0;
    try {
      if (path === '/' || path.startsWith('/web/'))
        return this.#file(path === '/' ? 'index.html' : path.slice(5), response);
      if (this.key && request.headers.authorization !== `Bearer ${this.key}`)
        throw new Failure(401, 'a valid API key is needed', { code: 'invalid_api_key' });
      const body = request.method === 'POST' ? await read(request) : null;
      if (works && this.#working > this.room) throw full();
      const routes = {
        'GET /v1/models': () => ({
          object: 'list',
          data: [{ id: 'toytown', object: 'model', created: 1, owned_by: 'chiasm' }],
        }),
        'GET /version': () => ({ version: '0.1.0' }),
        'GET /v1/status': () => this.#status(),
        'POST /v1/images': () => this.#upload(body),
        'POST /v1/chat/completions': () => this.#chat(body),
        'POST /fake/forget': () => (this.#pictures.clear(), {}),
      };
      const route = `${request.method} ${path}`;
      if (route === 'POST /v1/ask') return await this.#ask(body, response);
      if (!routes[route]) throw new Failure(404, `there is no ${path}`);
      send(response, 200, await routes[route]());
    } catch (error) {
      const failure = error instanceof Failure ? error : new Failure(500, 'internal error');
      if (failure !== error) console.error(error);
      if (response.headersSent) return response.end(`data: ${JSON.stringify(failure.json)}\n\n`);
      send(
        response,
        failure.status,
        failure.json,
        failure.retryAfter ? { 'Retry-After': String(failure.retryAfter) } : {},
      );
    } finally {
      this.#working -= works ? 1 : 0;
    }
  }

  #file(name, response) {
    if (!readdirSync(web).includes(name) || !kTypes[extname(name)]) throw new Failure(404, 'there is no such file');
    response.writeHead(200, {
      'Content-Type': kTypes[extname(name)],
      'Content-Security-Policy': kPolicy,
      'X-Content-Type-Options': 'nosniff',
      'Cache-Control': 'no-cache',
    });
    response.end(readFileSync(join(web, name)));
  }

  #status() {
    const c = this.counts;
    return {
      uptime_s: (Date.now() - this.#began) / 1000,
      model: 'toytown',
      requests: { running: c.running, waiting: c.waiting, finished: c.finished, failed: c.failed },
      kv: { blocks: 2048, used: 6 * c.running, cached: 7 * this.#prefixes.size },
      prefix_cache: { queried_tokens: c.queried, hit_tokens: c.hit },
      features: {
        memory_entries: this.#pictures.size,
        memory_bytes: [...this.#pictures.values()].reduce((sum, one) => sum + one.tokens * 1024, 0),
        memory_hits: c.memoryHits,
        disk_hits: 0,
        encoded: c.encoded,
      },
      tokens: { prompt: c.prompt, generated: c.generated },
      vision: { queued_tokens: 0, batches: c.encoded, pictures: c.encoded },
      vision_servers: [],
    };
  }

  // The picture of a data URI: known, or encoded now.
  #lookAt(uri, param) {
    const match = /^data:[^,]*;base64,(.*)$/s.exec(uri ?? '');
    if (!match) throw new Failure(400, `${param} must be a data URI`, { param });
    return this.#look(Buffer.from(match[1], 'base64'), param);
  }

  async #look(bytes, param) {
    const id = digest(bytes);
    if (this.#pictures.has(id)) {
      this.counts.memoryHits += 1;
      return { id, source: 'memory', ms: 0.1 };
    }
    const magic = bytes.subarray(0, 12).toString('latin1');
    if (!/^(\x89PNG|\xff\xd8|GIF8|BM|RIFF....WEBP)/s.test(magic))
      throw new Failure(400, `${param} is no PNG, JPEG, WebP, GIF or BMP picture`, { param });
    const known = this.#truth.get(id);
    const ms = 20 + 8 * Math.random();
    await sleep(ms * this.pace);
    const [, h, w] = known?.grid ?? [1, 16, 16];
    this.#pictures.set(id, { truth: known?.answers, tokens: (h * w) / 4, grid: [1, h, w] });
    this.counts.encoded += 1;
    return { id, source: 'encoded', ms };
  }

  async #upload(body) {
    const { id, source, ms } = await (body instanceof FormData
      ? this.#look(Buffer.from(await body.get('image').arrayBuffer()), 'image')
      : this.#lookAt(body.image?.image_url?.url ?? body.image, 'image'));
    const { grid, tokens } = this.#pictures.get(id);
    return { id, object: 'image', grid_thw: grid, tokens, source, ms };
  }

  // {used: vision array, pictures}
  async #resolve(images) {
    const used = [];
    for (const [i, image] of images.entries()) {
      const param = `images[${i}]`;
      let found = { id: image.image_id, source: 'memory', ms: 0 };
      if (typeof image === 'string') found = await this.#lookAt(image, param);
      else if (image.type === 'image_url') found = await this.#lookAt(image.image_url?.url, param);
      else if (!this.#pictures.has(image.image_id))
        throw new Failure(404, `${param} names a picture that is not known here; upload it again`, {
          param,
          code: 'image_not_found',
        });
      used.push({
        feature_id: found.id,
        tokens: this.#pictures.get(found.id).tokens,
        source: found.source,
        ms: found.ms,
      });
    }
    return used;
  }

  // What one question costs and says, with nothing sent.
  #answer(question, used, system, maxTokens) {
    const scenes = used.map(({ feature_id: id }) => this.#pictures.get(id)?.truth).filter(Boolean);
    let text =
      scenes.length === 2
        ? compare(question, scenes)
        : scenes.length === 1
          ? scenes[0].get(plain(question))
          : undefined;
    text ??= scenes.length === 1 && question === 'Read the sign.' ? 'The sign says 6.' : 'A town with no name.';
    let pieces = text.match(/\s*\S+/g);
    const cut = question.includes('!long') || pieces.length > maxTokens;
    if (cut) pieces = pieces.slice(0, Math.min(maxTokens, 2));
    const shared =
      kSystemTokens + (system ? Math.ceil(system.length / 4) : 0) + used.reduce((sum, one) => sum + one.tokens, 0);
    const prompt = shared + 8 + question.split(' ').length;
    const key = JSON.stringify([system, used.map((one) => one.feature_id)]);
    const cached = this.#prefixes.has(key) ? Math.floor(shared / kBlock) * kBlock : 0;
    this.#prefixes.add(key);
    this.counts.queried += prompt;
    this.counts.hit += cached;
    this.counts.prompt += prompt - cached;
    this.counts.generated += pieces.length + 1;
    return {
      pieces,
      finish: cut ? 'length' : 'stop',
      usage: {
        prompt_tokens: prompt,
        completion_tokens: pieces.length + 1,
        total_tokens: prompt + pieces.length + 1,
        prompt_tokens_details: { cached_tokens: cached },
      },
      timing: {
        queue_ms: 0.2,
        vision_ms: 0,
        prefill_ms: (prompt - cached) * 0.24 + 1.2,
        decode_ms: (pieces.length + 1) * 1.35,
      },
    };
  }

  // Whether this question comes for the first time.
  #once(question) {
    const first = !this.#busy.has(question);
    this.#busy.add(question);
    return first;
  }

  async #ask(body, response) {
    const questions = body.questions ?? [];
    if (!Array.isArray(questions) || questions.length === 0)
      throw new Failure(400, 'questions must hold at least one question', { param: 'questions' });
    if (body.max_tokens > 32768) throw new Failure(400, 'max_tokens must be at most 32768', { param: 'max_tokens' });
    for (const question of questions) {
      if (question.includes('!busy') && this.#once(question)) throw full();
    }
    if (!body.images?.length)
      throw new Failure(400, 'images: expected a list of pictures, got an empty list', { param: 'images' });
    const huge = questions.findIndex((question) => question.length > kContext);
    if (huge >= 0)
      throw new Failure(400, "The messages have 16085 tokens; this model's context takes fewer than 4096.", {
        param: `questions[${huge}]`,
        code: 'context_length_exceeded',
      });
    const used = await this.#resolve(body.images ?? []);
    const head = { id: `ask-${Date.now()}`, created: Math.floor(Date.now() / 1000), model: 'toytown' };
    const total = {
      prompt_tokens: 0,
      completion_tokens: 0,
      total_tokens: 0,
      prompt_tokens_details: { cached_tokens: 0 },
    };
    if (!body.stream) {
      const answers = questions.map((question, index) => {
        const { pieces, finish, usage, timing } = this.#answer(
          question,
          used,
          body.system ?? '',
          body.max_tokens ?? 256,
        );
        return { index, question, answer: pieces.join(''), finish_reason: finish, usage, timing };
      });
      return send(response, 200, { ...head, object: 'ask', answers, usage: total, vision: used });
    }
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
    const event = (object, fields) => response.write(`data: ${JSON.stringify({ object, ...head, ...fields })}\n\n`);
    let gone = false;
    response.on('close', () => (gone = true));
    response.write(': keep-alive\n\n');
    event('ask.vision', { vision: used });
    const c = this.counts;
    c.waiting += questions.length;
    await sleep(30 * this.pace);
    await Promise.all(
      questions.map(async (question, index) => {
        c.waiting -= 1;
        c.running += 1;
        await this.#stream({ question, index, body, used, event, total, response, gone: () => gone });
        c.running -= 1;
      }),
    );
    if (gone) return;
    event('ask.done', { usage: total });
    response.end('data: [DONE]\n\n');
  }

  async #stream({ question, index, body, used, event, total, response, gone }) {
    const c = this.counts;
    if (question.includes('!slow')) for (let i = 0; i < 300 && !gone(); ++i) await sleep(100);
    if (question.includes('!late') && this.#once(question))
      return event('ask.answer', { index, question, error: full().json.error });
    if (question.includes('!fail')) {
      c.failed += 1;
      const { error } = new Failure(400, 'the prompt has 40960 tokens, the context holds 32768', {
        param: 'questions',
        code: 'context_length_exceeded',
      }).json;
      return event('ask.answer', { index, question, error });
    }
    const { pieces, finish, usage, timing } = this.#answer(question, used, body.system ?? '', body.max_tokens ?? 256);
    await sleep((timing.prefill_ms + 40 * index) * this.pace);
    for (const piece of pieces) {
      if (gone()) return;
      event('ask.delta', { index, text: piece });
      await sleep(60 * this.pace);
      if (question.includes('!cut')) return response.destroy();
    }
    for (const field of ['prompt_tokens', 'completion_tokens', 'total_tokens']) total[field] += usage[field];
    total.prompt_tokens_details.cached_tokens += usage.prompt_tokens_details.cached_tokens;
    c.finished += 1;
    const logprobs = body.logprobs
      ? { content: pieces.map((piece) => ({ token: piece, logprob: -0.004 })) }
      : undefined;
    event('ask.answer', { index, question, answer: pieces.join(''), finish_reason: finish, usage, timing, logprobs });
  }

  async #chat(body) {
    const parts = body.messages
      .filter(({ role }) => role === 'user')
      .flatMap(({ content }) => (Array.isArray(content) ? content : [{ type: 'text', text: content }]));
    const used = await this.#resolve(parts.filter((part) => part.type !== 'text'));
    const question = parts.find((part) => part.type === 'text')?.text ?? '';
    const system = body.messages.find((message) => message.role === 'system')?.content ?? '';
    const { pieces, finish, usage } = this.#answer(question, used, system, body.max_tokens ?? 256);
    return {
      id: 'chatcmpl-1',
      object: 'chat.completion',
      created: 1,
      model: 'toytown',
      choices: [
        { index: 0, message: { role: 'assistant', content: pieces.join('') }, finish_reason: finish, logprobs: null },
      ],
      usage,
      vision: used,
    };
  }
}

// A form as FormData, everything else as JSON.
async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  const type = request.headers['content-type'] ?? '';
  try {
    if (type.startsWith('multipart/'))
      return await new Response(bytes, { headers: { 'Content-Type': type } }).formData();
    return JSON.parse(bytes.toString('utf8') || '{}');
  } catch {
    throw new Failure(400, 'the body is neither JSON nor a form');
  }
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name, fallback) =>
    process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : fallback;
  const room = Number(option('--room', '0')) || Infinity;
  const server = new FakeServer({ key: option('--key', ''), pace: Number(option('--pace', '1')), room });
  console.log(await server.listen(Number(option('--port', '8080'))));
}
