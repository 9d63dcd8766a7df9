// One answer in its cell: waiting, streaming, done with its bar, failed with what to do, cancelled. Changed in place.
import { isFresh, separate } from './answers.js';
import { barPlaces, clearBar, drawBar } from './bars.js';
import { el, icon } from './dom.js';
import { explain } from './failure.js';

const parts = new WeakMap(); // td → its elements

function partsOf(cell) {
  if (!parts.has(cell)) {
    const made = {
      who: el('p', { class: 'who-small' }),
      text: el('p', { class: 'text', dir: 'auto' }),
      trouble: el('p', { class: 'trouble' }),
      bar: barPlaces(),
      chips: el('p', { class: 'chips' }),
      meta: el('div', { class: 'meta' }),
    };
    made.meta.append(made.bar.numbers, made.chips);
    cell.replaceChildren(made.who, made.text, made.trouble, made.bar.track, made.meta);
    parts.set(cell, made);
  }
  return parts.get(cell);
}

export function drawCell(cell, question, column, answer) {
  const { who, text, trouble, bar, chips, meta } = partsOf(cell);
  const status = answer?.status ?? 'none';
  cell.className = `answer ${status}`;
  cell.classList.toggle('stale', status === 'done' && !isFresh(question, answer));
  cell.setAttribute('aria-busy', String(status === 'waiting' || status === 'streaming'));
  drawWho(who, column, status);

  const shown = answer?.text ?? '';
  if (text.textContent !== shown) {
    // The usual case is that a few characters were added: then the text node grows.
    if (text.firstChild?.nodeType === Node.TEXT_NODE && shown.startsWith(text.textContent))
      text.firstChild.appendData(shown.slice(text.textContent.length));
    else text.textContent = shown;
  }
  text.hidden = shown === '' && status !== 'waiting' && status !== 'streaming';

  trouble.replaceChildren(...troubleOf(answer, status));
  trouble.hidden = trouble.childNodes.length === 0;
  // Their places are there from the start: nothing moves beneath a reader when the answer ends.
  const open = status === 'waiting' || status === 'streaming';
  meta.hidden = bar.track.hidden = !(open || (status === 'done' && answer.timing));
  if (open) clearBar(bar);
  chips.replaceChildren(...(status === 'done' ? chipsOf(answer) : []));
}

export function drawCellBar(cell, timing, longest) {
  drawBar(partsOf(cell).bar, timing, longest);
}

// Which picture this is about: shown where there are no columns, on a phone.
function drawWho(who, column, status) {
  who.hidden = !separate() || status === 'none';
  if (who.hidden) who.replaceChildren();
  else if (who.childElementCount === 0)
    who.replaceChildren(el('img', { src: column.pictures[0].url, alt: '' }), column.pictures[0].name);
}

function troubleOf(answer, status) {
  if (status === 'failed') return [icon('alert'), explain(answer.failure)];
  if (status === 'cancelled') return ['Cancelled.'];
  if (status === 'waiting' && answer.notice) return [answer.notice];
  return [];
}

function chipsOf(answer) {
  const chips = [];
  if (answer.earlier) chips.push(el('span', { class: 'chip' }, 'about the earlier pictures'));
  if (answer.prompt > 0) {
    const reused = answer.cached > 0;
    chips.push(
      el(
        'span',
        {
          class: reused ? 'chip reused' : 'chip',
          title:
            'Prompt tokens that came from the prefix cache: system prompt and picture. The others were computed for this question.',
        },
        reused ? `${answer.cached} of ${answer.prompt}` : `${answer.prompt}`,
        el('span', { class: 'unit' }, ' tokens'),
        reused ? ' reused' : ', first time',
      ),
    );
  }
  if (answer.probability !== null && answer.probability !== undefined) {
    chips.push(
      el(
        'span',
        { class: 'chip', title: 'How likely the model finds this very answer, word for word' },
        `${percent(answer.probability)} sure`,
      ),
    );
  }
  if (answer.cut)
    chips.push(
      el(
        'span',
        { class: 'chip warn', title: 'The answer reached the length in the settings' },
        'cut at the length limit',
      ),
    );
  return chips;
}

function percent(p) {
  if (p > 0.9995) return '> 99.9 %';
  return `${(100 * p).toFixed(p >= 0.995 || p < 0.1 ? 1 : 0)} %`;
}
