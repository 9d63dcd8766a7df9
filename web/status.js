// The live panel: asks the server once a second how it is, while the page can be seen, and shows queue, cache and
// throughput. The server's counters are totals; the rates are made here.
import { status } from './api.js';
import { $, bytes, el, svg } from './dom.js';

const kSecond = 1000;
const kSlow = 5000; // after a failure
const kPoints = 60;

let timer = 0;
let last = null; // {at, answer}
const rates = { generated: [], prompt: [] };
let onNeedKey = () => {};

export function setUpStatus({ needKey }) {
  onNeedKey = needKey;
  document.addEventListener('visibilitychange', poll);
  poll();
}

// Now rather than at the next tick: a key was entered.
export function poll() {
  clearTimeout(timer);
  if (document.visibilityState !== 'hidden') tick();
}

let inFlight = false;
async function tick() {
  if (inFlight) return;
  inFlight = true;
  let wait = kSecond;
  try {
    show(await status());
  } catch (failure) {
    wait = kSlow;
    last = null;
    trouble(failure);
  }
  inFlight = false;
  clearTimeout(timer);
  if (document.visibilityState !== 'hidden') timer = setTimeout(tick, wait);
}

function trouble(failure) {
  light(failure.status === 401 ? 'locked' : failure.status === 0 ? 'off' : 'on');
  const text =
    failure.status === 401
      ? 'Needs the API key.'
      : failure.status === 404
        ? 'This server has no live figures.'
        : failure.status === 0
          ? 'The server does not answer. Trying again every 5 s.'
          : 'The server has no figures now. Trying again every 5 s.';
  $('#live-trouble').textContent = text;
  $('#live-trouble').hidden = false;
  $('#live').classList.add('stale');
  if (failure.status === 401) onNeedKey();
}

const kLights = { off: 'offline', locked: 'needs a key', busy: 'working', on: 'ready' };

function light(state) {
  $('#light').dataset.state = state;
  $('#light-text').textContent = kLights[state];
}

function show(answer) {
  const at = performance.now();
  $('#live-trouble').hidden = true;
  $('#live').classList.remove('stale');
  const { requests = {}, kv = {}, prefix_cache: prefix = {}, features = {}, tokens = {}, vision = {} } = answer;
  light(requests.running > 0 || requests.waiting > 0 ? 'busy' : 'on');

  put('running', count(requests.running));
  put('waiting', count(requests.waiting));
  put('finished', count(requests.finished));
  put('failed', count(requests.failed));
  $('#failed').classList.toggle('bad', requests.failed > 0);

  // A restarted server counts from nothing again.
  if (last && answer.uptime_s >= last.answer.uptime_s && at > last.at) {
    const seconds = (at - last.at) / 1000;
    for (const kind of ['generated', 'prompt']) {
      const rate = Math.max(0, ((tokens[kind] ?? 0) - (last.answer.tokens?.[kind] ?? 0)) / seconds);
      rates[kind].push(rate);
      if (rates[kind].length > kPoints) rates[kind].shift();
      put(`${kind}-rate`, count(Math.round(rate)));
    }
  }
  last = { at, answer };
  spark($('#spark'), rates);

  meter(
    $('#kv'),
    [
      ['used', kv.used],
      ['cached', kv.cached],
    ],
    kv.blocks,
  );
  put(
    'kv-text',
    kv.blocks > 0 ? `${count(kv.used)} in use, ${count(kv.cached)} kept, of ${count(kv.blocks)} blocks` : '–',
  );

  const share = prefix.queried_tokens > 0 ? prefix.hit_tokens / prefix.queried_tokens : 0;
  meter($('#prefix'), [['hit', share]], 1);
  put(
    'prefix-text',
    prefix.queried_tokens > 0
      ? `${Math.round(100 * share)} % of ${count(prefix.queried_tokens)} prompt tokens reused`
      : 'nothing asked yet',
  );

  put('features', `${count(features.memory_entries)} · ${bytes(features.memory_bytes ?? 0)}`);
  put('encoded', count(features.encoded));
  put('hits', count((features.memory_hits ?? 0) + (features.disk_hits ?? 0)));
  put('queued', `${count(vision.queued_tokens)} tokens`);
  servers(answer.vision_servers ?? []);
  put('uptime', duration(answer.uptime_s ?? 0));
}

function put(id, text) {
  const place = $(`#${id}`);
  if (place.textContent !== text) place.textContent = text;
}

function count(n) {
  if (!(n >= 0)) return '–';
  if (n >= 10e6) return `${(n / 1e6).toFixed(1)} M`;
  return n.toLocaleString('en');
}

function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function meter(place, parts, whole) {
  let x = 0;
  const bars = parts.map(([name, value]) => {
    const width = whole > 0 ? Math.min(100 - x, Math.max(0, (100 * (value || 0)) / whole)) : 0;
    const bar = svg('rect', { class: `fill-${name}`, x: `${x}%`, y: 0, width: `${width}%`, height: 6 });
    x += width;
    return bar;
  });
  place.replaceChildren(...bars);
}

// Tokens a second over the last minute: what was written as a line, what was read as the area behind it, each to its
// own height.
function spark(place, series) {
  const width = 240;
  const height = 44;
  const points = (values) => {
    const top = Math.max(1, ...values);
    return values.map((value, i) => [
      ((i + kPoints - values.length) * width) / (kPoints - 1),
      height - 1 - ((height - 4) * value) / top,
    ]);
  };
  const written = (list) => list.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(' ');
  const prompt = points(series.prompt);
  const area = prompt.length > 1 ? `${prompt[0][0].toFixed(1)},${height} ${written(prompt)} ${width},${height}` : '';
  place.replaceChildren(
    svg('line', { class: 'base', x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }),
    area ? svg('polygon', { class: 'prompt', points: area }) : '',
    series.generated.length > 1
      ? svg('polyline', { class: 'generated', points: written(points(series.generated)) })
      : '',
  );
}

function servers(list) {
  const place = $('#servers');
  place.hidden = list.length === 0;
  const text = JSON.stringify(list);
  if (place.dataset.list === text) return;
  place.dataset.list = text;
  place.replaceChildren(
    ...list.slice(0, 16).map(({ name, state }) => {
      const good = /^(up|ready|healthy|ok)$/i.test(state);
      return el(
        'li',
        { class: good ? 'good' : 'bad' },
        el('i', { class: 'dot' }),
        el('span', {}, String(name)),
        el('b', {}, String(state)),
      );
    }),
  );
}
