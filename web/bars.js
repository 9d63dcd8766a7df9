// The bar of an answer: where its time went, to one scale over the whole table.
import { el, milliseconds, svg } from './dom.js';

// In the order in which they happen; `key` is also the colour's class. Waiting is told only where there was some.
export const phases = [
  { key: 'queue', field: 'queue_ms', label: 'waited', about: 'for its turn' },
  { key: 'vision', field: 'vision_ms', label: 'vision', about: 'looking at the picture' },
  { key: 'prefill', field: 'prefill_ms', label: 'prefill', about: 'reading the question' },
  { key: 'decode', field: 'decode_ms', label: 'decode', about: 'writing the answer' },
];

const kWorthTelling = 0.5; // milliseconds of waiting

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

// Draws `timing`; `longest` milliseconds would be the whole width. `only`: the phases to tell.
export function drawBar({ track, numbers }, timing, longest, only = null) {
  const shown = parts(timing).filter((part) => !only || only.includes(part.key));
  const label = shown.map((part) => `${part.label} ${milliseconds(part.ms)}`).join(', ');
  const bar = svg('svg', {
    class: 'bar',
    role: 'img',
    'aria-label': label,
    width: '100%',
    height: 6,
    preserveAspectRatio: 'none',
  });
  let x = 0;
  for (const part of shown) {
    const width = longest > 0 ? (100 * part.ms) / longest : 0;
    if (width > 0) {
      // Never thinner than half a pixel or so: what took time can be seen.
      bar.append(
        svg('rect', { class: `fill-${part.key}`, x: `${x}%`, y: 0, width: `${Math.max(width, 0.3)}%`, height: 6 }),
      );
    }
    x += width;
  }
  track.replaceChildren(bar);
  numbers.replaceChildren(
    ...shown.map((part) =>
      el(
        'span',
        { class: part.ms < 0.05 ? 'number zero' : 'number' },
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
