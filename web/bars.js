// The bar of an answer: where its time went, to one scale over the whole table.
import { el, milliseconds, svg } from './dom.js';

// In the order in which they happen; `key` is also the colour's class. Waiting is told only where there was some.
export const phases = [
  { key: 'queue', field: 'queue_ms', label: 'waited', about: 'for its turn' },
  { key: 'vision', field: 'vision_ms', label: 'vision', about: 'looking at the picture' },
  { key: 'prefill', field: 'prefill_ms', label: 'prefill', about: 'reading the question' },
  { key: 'decode', field: 'decode_ms', label: 'decode', about: 'writing the answer' },
];

const kWorthTelling = 0.5; // milliseconds of waiting, and of anything where there is little room
const kThinnest = 0.4; // percent of the width
const kPartable = 3;

function parts(timing) {
  return phases
    .map((phase) => ({ ...phase, ms: Math.max(0, Number(timing[phase.field]) || 0) }))
    .filter((part) => part.key !== 'queue' || part.ms >= kWorthTelling);
}

export function total(timing) {
  return timing ? parts(timing).reduce((sum, part) => sum + part.ms, 0) : 0;
}

// The places of a bar: {track, numbers}.
export function barPlaces() {
  return { track: el('div', { class: 'track' }), numbers: el('p', { class: 'numbers' }) };
}

export function clearBar({ track, numbers }) {
  track.replaceChildren();
  numbers.replaceChildren();
}

// Draws `timing`; `longest` milliseconds would be the whole width. `only`: the phases to tell.
export function drawBar({ track, numbers }, timing, longest, only = null) {
  const shown = parts(timing).filter((part) => !only || only.includes(part.key));
  // Those who listen hear the numbers beneath.
  const bar = svg('svg', {
    class: 'bar',
    'aria-hidden': 'true',
    width: '100%',
    height: 6,
    preserveAspectRatio: 'none',
  });
  let x = 0;
  let before = 0;
  for (const part of shown) {
    const width = longest > 0 ? (100 * part.ms) / longest : 0;
    const rect = (kind, wide) => bar.append(svg('rect', { class: kind, x: `${x}%`, y: 0, width: wide, height: 6 }));
    // Never thinner than a pixel or so: what took time can be seen.
    if (width > 0) rect(`fill-${part.key}`, `${Math.max(width, kThinnest)}%`);
    // Neighbours can be told apart without their colours, unless they are thinner than what would part them.
    if (Math.min(before, width) > kPartable) rect('gap', 2);
    if (width > kThinnest) before = width;
    x += width;
  }
  track.replaceChildren(bar);
  numbers.replaceChildren(
    ...shown.map((part) =>
      el(
        'span',
        { class: part.ms < kWorthTelling ? 'number zero' : 'number' },
        el('i', { class: `dot fill-${part.key}` }),
        el('span', { class: 'phase' }, `${part.label} `),
        el('b', {}, milliseconds(part.ms)),
      ),
    ),
  );
}

export function drawLegend(place) {
  place.replaceChildren(
    ...phases.map((phase) =>
      el('li', {}, el('i', { class: `dot fill-${phase.key}` }), el('b', {}, phase.label), ` ${phase.about}`),
    ),
  );
}
