// What the browser test's steps share: counting, checks, and the page's vocabulary (add a sample, ask, wait, read the
// answers).
import { until } from './browser.mjs';

export class Report {
  passed = 0;
  failed = 0;
  skipped = 0;

  async step(name, work) {
    const began = Date.now();
    try {
      await work();
      this.passed += 1;
      console.log(`ok      ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      this.failed += 1;
      console.log(
        `FAILED  ${name}\n        ${String(error.stack ?? error)
          .split('\n')
          .slice(0, 4)
          .join('\n        ')}`,
      );
    }
  }

  skip(name, why) {
    this.skipped += 1;
    console.log(`skipped ${name}: ${why}`);
  }
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

export function equal(got, expected, what) {
  check(
    JSON.stringify(got) === JSON.stringify(expected),
    `${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`,
  );
}

// Chromium reports every refused request on the console; a step that provokes refusals says which statuses.
export function noProblems(page, ...statuses) {
  const rest = page
    .takeProblems()
    .filter(
      (problem) =>
        !statuses.some(
          (status) => problem.startsWith('log: Failed to load resource') && problem.includes(` ${status} `),
        ),
    );
  equal(rest, [], 'console errors and policy violations');
}

const kReady =
  'document.querySelectorAll(".thumb").length === document.querySelectorAll(".thumb[data-status=ready]").length';

export async function addSample(page, name) {
  const before = await page.evaluate('document.querySelectorAll(".thumb").length');
  await page.click(`[data-sample=${name}]`);
  await thumbs(page, before + 1);
}

// Waits until there are so many pictures and the server has looked at all.
export async function thumbs(page, count) {
  await until(`${count} pictures looked at`, () =>
    page.evaluate(`document.querySelectorAll(".thumb").length === ${count} && ${kReady}`),
  );
}

export async function ask(page) {
  await page.click('#ask');
  await finish(page);
}

export async function finish(page) {
  await until('the answers', () =>
    page.evaluate('!document.querySelector("#ask").hidden && !document.querySelector("td.waiting, td.streaming")'),
  );
}

// [[question, [answer of each column]]]
export function answers(page) {
  return page.evaluate(`[...document.querySelectorAll('#rows tr:not(.blank)')].map((row) => [
    row.querySelector('textarea').value,
    [...row.querySelectorAll('td')].map((cell) => cell.classList.contains('done') ? cell.querySelector('.text').textContent : '(' + cell.className + ')' + cell.textContent),
  ])`);
}

export async function checkAnswers(page, columns) {
  const got = await answers(page);
  check(got.length > 0, 'there are no questions');
  equal(
    got,
    got.map(([question]) => [question, columns.map((column) => column[question])]),
    'answers',
  );
  return got.length;
}

export async function writeQuestion(page, text) {
  await page.click('#rows tr.blank textarea');
  await page.type(text);
}

// A file made in the page, as the clipboard or a drag would bring it.
export function giveFile(page, event, { from = '', text = '', name, type }) {
  return page.evaluate(`(async () => {
    const bytes = ${from ? `await (await fetch(${JSON.stringify(from)})).blob()` : JSON.stringify(text)};
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], ${JSON.stringify(name)}, {type: ${JSON.stringify(type)}}));
    const target = document.querySelector('#pictures');
    if (${JSON.stringify(event)} === 'paste') {
      target.dispatchEvent(new ClipboardEvent('paste', {clipboardData: carried, bubbles: true, cancelable: true}));
      return true;
    }
    const send = (kind) => target.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
    send('dragenter');
    send('dragover');
    const shown = document.querySelector('.curtain').checkVisibility();
    send('drop');
    return shown && !document.querySelector('.curtain').checkVisibility();
  })()`);
}

// Elements whose text has too little contrast with what is behind it (WCAG AA), as sentences.
export function faint(page) {
  return page.evaluate(`(() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (rgb) => {
      const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const color = rgba(getComputedStyle(at).backgroundColor);
        if (color[3] > 250) return color.slice(0, 3);
      }
      return [255, 255, 255];
    };
    const found = [];
    for (const node of document.querySelectorAll('body *')) {
      const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== '') || node.tagName === 'TEXTAREA';
      if (!own || !node.checkVisibility() || node.closest('.sr, .skip, .remove, noscript')) continue;
      const style = getComputedStyle(node);
      const a = light(rgba(style.color).slice(0, 3)), b = light(behind(node));
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(node.tagName + '.' + node.className + ' "' + node.textContent.trim().slice(0, 30) + '": ' + ratio.toFixed(2));
    }
    return found;
  })()`);
}

// Controls without a name that a screen reader could say.
export async function nameless(page) {
  const { nodes } = await page.send('Accessibility.getFullAXTree');
  const needs = new Set([
    'button',
    'textbox',
    'checkbox',
    'radio',
    'spinbutton',
    'link',
    'tab',
    'table',
    'dialog',
    'image',
  ]);
  return nodes
    .filter((node) => !node.ignored && needs.has(node.role?.value))
    .filter((node) => !node.name?.value)
    .map((node) => `${node.role.value} without a name`);
}

export const label = (page) => page.text('#ask-label');

// How often the badge says that the pictures were reused.
export async function reuses(page) {
  return Number(/reused (once|\d+)/.exec(await page.text('.badge'))?.[1].replace('once', '1') ?? -1);
}
