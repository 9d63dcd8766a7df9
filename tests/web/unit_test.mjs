// The parts of the page that need no browser: the event reader, the badge, and the code it writes; curl's is run in a
// shell against the stand-in server. Node 20, no packages:  node tests/web/unit_test.mjs
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { FakeServer } from './fake_server.mjs';
import { Report, check, equal } from './harness.mjs';
import { importPage, presets, samples } from './page_data.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const { EventReader } = await importPage('events.js');
const { badgeDetail, badgeText, countLook, isReuse, newSight } = await importPage('badge.js');
const { languages } = await importPage('snippets.js');
const { Lane } = await importPage('lane.js');
const { ApiFailure, explain } = await importPage('failure.js');
const { foreignKind } = await importPage('picture_kind.js');
const report = new Report();

const kStream =
  ': ping\n\ndata: {"a":"é"}\r\n\r\ndata:{"b":\ndata: 2}\n\nevent: x\nid: 3\n\n: ping\ndata: {"c":"\\n"}\r\rdata: [DONE]\n\n';

await report.step('events are the same wherever the bytes are cut', () => {
  const bytes = new TextEncoder().encode(kStream);
  for (let size = 1; size <= bytes.length; ++size) {
    const reader = new EventReader();
    const events = [];
    for (let at = 0; at < bytes.length; at += size) events.push(...reader.push(bytes.subarray(at, at + size)));
    equal(events, [{ a: 'é' }, { b: 2 }, { c: '\n' }], `events in pieces of ${size}`);
    check(reader.done, `[DONE] in pieces of ${size}`);
  }
});

await report.step('what is no JSON and what never ends is refused', () => {
  for (const [text, what] of [
    ['data: {"a":\n\n', 'half an object'],
    ['data: ' + 'x'.repeat(33 << 20), 'a line without an end'],
  ]) {
    let thrown = null;
    try {
      new EventReader().push(new TextEncoder().encode(text));
    } catch (error) {
      thrown = error;
    }
    check(thrown instanceof SyntaxError, `${what} was taken`);
  }
});

await report.step('the badge counts looks and reuses', () => {
  const seen = (...sources) =>
    sources.reduce((sight, source) => (countLook(sight, { source, tokens: 70, ms: 20 }), sight), newSight());
  equal(badgeText([seen('encoded', 'memory', 'memory')], 4), 'looked at once, reused 4 times', 'one picture');
  equal(badgeText([seen('vision_server', 'vision_server')], 1), 'looked at twice, reused once', 'two looks');
  equal(badgeText([seen('disk', 'memory')], 0), 'known already, not reused yet', 'from the disk');
  equal(badgeText([seen('encoded'), seen('encoded')], 3), 'each looked at once, reused 3 times', 'two pictures');
  equal(
    badgeText([seen('encoded'), seen('disk')], 3),
    '1 known already, the rest looked at once, reused 3 times',
    'one of two',
  );
  equal(
    badgeText([seen('encoded', 'encoded', 'encoded'), seen('encoded')], 3),
    'looked at 4 times in all, reused 3 times',
    'four looks',
  );
  check(
    badgeDetail([seen('encoded')], 4, 5).includes('ran once, 20 ms in all. 4 of 5 answers took the 70 image tokens'),
    badgeDetail([seen('encoded')], 4, 5),
  );
  const sight = [seen('encoded')];
  equal(
    [0, 16, 64, 80].map((cached) => isReuse(cached, sight)),
    [false, false, true, true],
    'reuse by cached tokens',
  );
  equal(isReuse(80, []), false, 'no picture');
  equal(isReuse(80, [seen('encoded'), seen('encoded')]), false, 'half of two pictures');
});

// A lane whose time passes only where it waits; `waits` are the seconds.
function laneOfWaits(most) {
  const waits = [];
  let now = 0;
  const pause = async (seconds) => {
    waits.push(seconds);
    now += seconds;
  };
  return { lane: new Lane(most, { pause, now: () => now }), waits };
}
const full = (retryAfter) => new ApiFailure(503, { message: 'full' }, retryAfter);
const unheard = new AbortController().signal;

await report.step('a full server is asked again as it said, longer every time, for two minutes', async () => {
  const { lane, waits } = laneOfWaits(2);
  const told = [];
  let refusals = 3;
  const work = async () => {
    if (refusals-- > 0) throw full(1);
    return 'done';
  };
  equal(await lane.pass(work, unheard, (seconds) => told.push(seconds)), 'done', 'result');
  equal(told, [1, 0, 2, 0, 4, 0], 'what was told');
  const thrown = async (error, signal = unheard) => {
    waits.length = 0;
    return lane.pass(() => Promise.reject(error), signal).catch((failure) => failure);
  };
  const refusal = full(1);
  equal((await thrown(refusal)) === refusal, true, 'the failure in the end');
  const waited = waits.reduce((sum, seconds) => sum + seconds, 0);
  check(waited > 100 && waited <= 120 && Math.max(...waits) <= 15, `waits: ${waits}`);
  await thrown(full(40));
  equal(waits, [40, 40, 40], 'waits as told');
  await thrown(full(600));
  equal(waits, [], 'waits for a server that is closed for long');
  await thrown(new ApiFailure(400));
  equal(waits, [], 'waits after what would fail again');
});

await report.step('a lane narrows when the server is full, keeps its order, and lets go who leaves', async () => {
  const { lane } = laneOfWaits(3);
  let inside = 0;
  let most = 0;
  const order = [];
  const work = (name, refusals) => async () => {
    most = Math.max(most, (inside += 1));
    await new Promise((resolve) => setTimeout(resolve, 1));
    inside -= 1;
    if (refusals-- > 0) throw full(1);
    order.push(name);
  };
  await Promise.all([1, 2, 3, 4, 5].map((name) => lane.pass(work(name, 0), unheard)));
  equal([most, order], [3, [1, 2, 3, 4, 5]], 'width and order');
  await lane.pass(work(0, 2), unheard);
  most = 0;
  order.length = 0;
  const leaver = new AbortController();
  const all = [6, 7].map((name) => lane.pass(work(name, 0), unheard));
  const left = lane.pass(work(8, 0), leaver.signal).catch((error) => error.message);
  leaver.abort(new Error('left'));
  await Promise.all([...all, lane.pass(work(9, 0), unheard)]);
  equal([await left, order], ['left', [6, 7, 9]], 'who left, and the others');
  check(most <= 2, `${most} at once just after the server was full`);
});

await report.step('failures are told with advice that fits', () => {
  const told = (status, fields, retryAfter = 0) => explain(new ApiFailure(status, fields, retryAfter));
  for (const [text, wanted, unwanted] of [
    [told(400, { message: 'JPEG: truncated: the file ends', param: 'image' }), /^JPEG: .*damaged/, /WebP|Try again/],
    [
      told(400, { message: 'expected an aspect ratio of at most 200', param: 'image' }),
      /less narrow/,
      /WebP|Try again/,
    ],
    [
      told(400, { message: 'send less (mm_processor_kwargs.max_pixels)', code: 'context_length_exceeded' }),
      /^This question and its pictures are longer.*Use fewer/,
      /mm_processor/,
    ],
    [told(503, { message: 'full' }, 5), /^Full\. Try again in 5 s\.$/, /damaged/],
    [told(0, {}), /^The server does not answer\. See whether chiasm is still running/, /status/],
  ])
    check(wanted.test(text) && !unwanted.test(text), text);
});

await report.step('what phones write is known by its first bytes', async () => {
  const box = (brand, others = '') => new Blob([`\0\0\0\x18ftyp${brand}\0\0\0\0${others}`]);
  const kinds = [
    box('heic'),
    box('mif1', 'heic'),
    box('avif', 'mif1'),
    box('mif1'),
    box('isom'),
    new Blob(['\x89PNG']),
  ];
  equal(await Promise.all(kinds.map(foreignKind)), ['HEIC', 'HEIC', 'AVIF', 'HEIF', '', ''], 'kinds');
});

await report.step('samples and sets are whole', () => {
  check(samples.length >= 4 && samples.every((sample) => sample.questions.length >= 4 && sample.label), 'samples');
  check(
    presets.every((preset) => preset.questions.length > 0 && preset.label),
    'sets',
  );
});

// Everything that a shell or a language could take for its own.
const kNasty = 'Is "it" $HOME, `id`, $(id), \\n, \\\\ or \'so\'? <b>&\u2028%s — é 有猫吗?';

await report.step('curl’s code runs in a shell and asks exactly what was asked', async () => {
  const server = new FakeServer({ key: "se'same $1", pace: 0 });
  const asked = [];
  server.server.prependListener('request', (request) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => asked.push({ path: request.url, body: Buffer.concat(chunks).toString() }));
  });
  const origin = await server.listen();
  const folder = mkdtempSync(join(tmpdir(), 'chiasm-snippet-'));
  try {
    copyFileSync(join(root, 'web/sample-cat.png'), join(folder, "my cat's.png"));
    const ask = {
      origin,
      model: 'toytown',
      system: kNasty,
      maxTokens: 64,
      files: [
        { name: "my cat's.png", url: '' },
        { name: 'sample-fire.png', url: '/web/sample-fire.png' },
      ],
      questions: [kNasty, 'Read the sign.'],
      key: "se'same $1",
    };
    const run = async (each) => {
      asked.length = 0;
      const code = languages[0].write({ ...ask, each });
      const { stdout } = await promisify(execFile)('bash', ['-euc', code], {
        cwd: folder,
        env: { PATH: process.env.PATH },
      });
      return { stdout, bodies: asked.filter(({ path }) => path === '/v1/ask').map(({ body }) => JSON.parse(body)) };
    };
    const together = await run(false);
    equal(together.bodies.length, 1, 'requests');
    const [body] = together.bodies;
    equal(
      [body.model, body.system, body.questions, body.max_tokens],
      ['toytown', kNasty, ask.questions, 64],
      'the request',
    );
    check(
      body.images.length === 2 && body.images.every((image) => image.startsWith('data:image/png;base64,iVBOR')),
      'pictures',
    );
    equal(JSON.parse(together.stdout).answers.length, 2, 'answers');
    const apart = await run(true);
    equal(
      apart.bodies.map(({ images }) => images.length),
      [1, 1],
      'pictures of each request',
    );
    check(apart.stdout.includes('The sign says 19.'), `answers: ${apart.stdout}`);
    equal(
      apart.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).answers.length),
      [2, 2],
      'answers a line',
    );
    // A picture that was uploaded is named by its id; it is in no file.
    const { id } = JSON.parse(
      (
        await promisify(execFile)('curl', [
          ...['-sS', '-H', `Authorization: Bearer ${ask.key}`, `${origin}/v1/images`],
          ...['-F', `image=@${join(root, 'web/sample-cat.png')}`],
        ])
      ).stdout,
    );
    ask.files = [{ name: 'image.png', url: '', id }];
    check((await run(false)).stdout.includes('The sign says 19.'), 'no answer by the id');
    // Without a picture it is a chat, one request for each question.
    ask.files = [];
    asked.length = 0;
    const chat = (await run(false)).stdout.trim().split('\n');
    equal(chat.length, 2, 'answers without a picture');
    const first = JSON.parse(asked.find(({ path }) => path === '/v1/chat/completions').body);
    equal(
      [first.messages.map(({ role }) => role), first.messages.map(({ content }) => content)],
      [
        ['system', 'user'],
        [kNasty, kNasty],
      ],
      'the chat',
    );
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});

await report.step('no key in the code unless it is given', () => {
  const ask = {
    origin: 'http://localhost:8080',
    model: 'm',
    system: '',
    maxTokens: 1,
    files: [{ name: 'a.png', url: '' }],
    questions: ['q'],
    each: false,
  };
  for (const { name, write } of languages) {
    check(write({ ...ask, key: '' }).includes('CHIASM_API_KEY'), `${name} does not read the key from the environment`);
    check(write({ ...ask, key: 'sesame' }).includes('sesame'), `${name} lacks the key that it was given`);
  }
});

console.log(`${report.passed} passed, ${report.failed} failed`);
process.exit(report.failed > 0 ? 1 : 0);
