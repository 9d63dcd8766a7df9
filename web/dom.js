// Makes and finds elements. Text goes in as text nodes only: nothing here or elsewhere in the page parses HTML, because
// what a model or a file name says is never markup.

export const $ = (selector, root = document) => root.querySelector(selector);

// el('button', {class: 'plain', type: 'button', onclick: f, 'aria-label': 'Remove'}, 'text', child, ...)
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

const kSvg = 'http://www.w3.org/2000/svg';

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(kSvg, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

// An icon of index.html's sprite. Decoration: the control around it has the name.
export function icon(name) {
  return svg('svg', { class: 'icon', 'aria-hidden': 'true' }, svg('use', { href: `#i-${name}` }));
}

// Says it to those who listen instead of look. A repeated sentence is read again.
export function announce(text) {
  const region = $('#announcer');
  const line = el('p', {}, text);
  region.append(line);
  while (region.childElementCount > 8) region.firstElementChild.remove();
}

export function plural(n, one, many = `${one}s`) {
  return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

export function milliseconds(ms) {
  if (!(ms >= 0)) return '–';
  if (ms >= 9950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 995) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 9.95 || ms < 0.05 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1023.5 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 || n >= 99.95 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}
