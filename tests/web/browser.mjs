// Headless Chromium over the DevTools protocol, through a pipe: no port, no packages. A Page does what a person does
// (clicks where the element is, types keys) and keeps what went wrong: console errors, exceptions, violations of the
// Content-Security-Policy.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const kNames = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];

// The browser's path, '' if there is none.
export function findBrowser() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of kNames) if (existsSync(join(folder, name))) return join(folder, name);
  }
  return '';
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Until `probe` gives something true. Generous: the machine may be loaded.
export async function until(what, probe, ms = 60000) {
  const end = Date.now() + ms;
  let last;
  while (Date.now() < end) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error.message;
    }
    await sleep(40);
  }
  throw new Error(`waited ${ms / 1000} s for: ${what} (last: ${JSON.stringify(last)})`);
}

export class Browser {
  #process;
  #profile = mkdtempSync(join(tmpdir(), 'chiasm-web-'));
  #next = 1;
  #open = new Map();
  #rest = '';
  sessions = new Map(); // session id → handler of its events

  constructor(path) {
    const flags = [
      '--headless=new',
      '--remote-debugging-pipe',
      '--no-first-run',
      '--no-default-browser-check',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-extensions',
      '--disable-sync',
      '--mute-audio',
      '--hide-scrollbars',
      '--force-color-profile=srgb',
      '--font-render-hinting=none',
      '--disable-dev-shm-usage',
      `--user-data-dir=${this.#profile}`,
    ];
    if (process.getuid?.() === 0) flags.push('--no-sandbox');
    this.#process = spawn(path, [...flags, 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    const [, , , , from] = this.#process.stdio;
    from.setEncoding('utf8');
    from.on('data', (chunk) => this.#receive(chunk));
    this.#process.on('exit', (code) => {
      for (const { reject } of this.#open.values()) reject(new Error(`the browser ended (${code})`));
      this.#open.clear();
    });
  }

  #receive(chunk) {
    const messages = (this.#rest + chunk).split('\0');
    this.#rest = messages.pop();
    for (const text of messages) {
      const message = JSON.parse(text);
      if (message.id === undefined) this.sessions.get(message.sessionId)?.(message.method, message.params);
      else {
        const { resolve, reject, method } = this.#open.get(message.id) ?? {};
        this.#open.delete(message.id);
        if (message.error) reject?.(new Error(`${method}: ${message.error.message}`));
        else resolve?.(message.result);
      }
    }
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject, method });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  // A page of its own context: storage and cookies are not shared with another.
  async page() {
    const { browserContextId } = await this.send('Target.createBrowserContext');
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    await page.start();
    return page;
  }

  async close() {
    const ended = new Promise((resolve) => this.#process.on('exit', resolve));
    await Promise.race([this.send('Browser.close').catch(() => {}), sleep(5000)]);
    await Promise.race([ended, sleep(5000)]);
    this.#process.kill('SIGKILL');
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

export class Page {
  problems = []; // console errors, exceptions, violations
  requests = []; // URLs asked for
  uploads = []; // answers to POST /v1/images

  constructor(browser, session, target) {
    Object.assign(this, { browser, session, target });
    browser.sessions.set(session, (method, params) => this.#event(method, params));
  }

  send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  async start() {
    for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'DOM', 'Audits']) await this.send(`${domain}.enable`);
    await this.size(1280, 900);
    await this.send('Emulation.setFocusEmulationEnabled', { enabled: true });
  }

  #event(method, params) {
    if (method === 'Runtime.exceptionThrown')
      this.problems.push(
        `exception: ${params.exceptionDetails.exception?.description ?? params.exceptionDetails.text}`,
      );
    else if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params.type)) {
      this.problems.push(`console: ${params.args.map((arg) => arg.value ?? arg.description).join(' ')}`);
    } else if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) {
      this.problems.push(`log: ${params.entry.text} ${params.entry.url ?? ''}`);
    } else if (method === 'Audits.issueAdded' && params.issue.code === 'ContentSecurityPolicyIssue') {
      this.problems.push(`policy: ${JSON.stringify(params.issue.details.contentSecurityPolicyIssueDetails)}`);
    } else if (method === 'Network.requestWillBeSent') this.requests.push(params.request.url);
    else if (method === 'Network.responseReceived' && params.response.url.endsWith('/v1/images'))
      this.#upload = params.requestId;
    else if (method === 'Network.loadingFinished' && params.requestId === this.#upload) {
      this.send('Network.getResponseBody', { requestId: params.requestId }).then(
        ({ body }) => this.uploads.push(JSON.parse(body)),
        () => {},
      );
    }
  }
  #upload = '';

  async go(url) {
    await this.send('Page.navigate', { url });
    await this.ready();
  }

  async reload() {
    await this.evaluate('window.beforeReload = true');
    await this.send('Page.reload');
    await until('the reload', () => this.evaluate('!window.beforeReload'));
    await this.ready();
  }

  ready() {
    return until('the page', () =>
      this.evaluate('document.readyState === "complete" && !!document.querySelector("#rows tr")'),
    );
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  text(selector) {
    return this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? null`);
  }

  visible(selector) {
    return this.evaluate(`document.querySelector(${JSON.stringify(selector)})?.checkVisibility() ?? false`);
  }

  focused() {
    return this.evaluate(
      '(({id, className, tagName}) => id ? "#" + id : tagName.toLowerCase() + "." + className)(document.activeElement)',
    );
  }

  size(width, height, { mobile = false, scale = 1 } = {}) {
    return this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile });
  }

  look(scheme) {
    return this.send('Emulation.setEmulatedMedia', {
      features: [
        { name: 'prefers-color-scheme', value: scheme },
        { name: 'prefers-reduced-motion', value: 'reduce' },
      ],
    });
  }

  // Where the element is, after it was scrolled into view; it must be what a mouse would hit there.
  async click(selector) {
    const at = await until(
      `${selector} to be clickable`,
      () =>
        this.evaluate(`(() => {
        const node = document.querySelector(${JSON.stringify(selector)});
        if (!node || node.disabled) return null;
        node.scrollIntoView({block: 'center', behavior: 'instant'});
        const box = node.getBoundingClientRect();
        const x = box.x + box.width / 2, y = box.y + box.height / 2;
        const hit = document.elementFromPoint(x, y);
        return hit && (node.contains(hit) || hit.contains(node)) ? {x, y} : null;
      })()`),
      15000,
    );
    for (const type of ['mousePressed', 'mouseReleased'])
      await this.send('Input.dispatchMouseEvent', { type, ...at, button: 'left', clickCount: 1 });
  }

  async type(text) {
    await this.send('Input.insertText', { text });
  }

  // press('Enter', {control: true}), press('KeyN', {alt: true})
  async press(name, { control = false, alt = false, shift = false } = {}) {
    const known = {
      Enter: ['Enter', 13, '\r'],
      Tab: ['Tab', 9],
      Escape: ['Escape', 27],
      Backspace: ['Backspace', 8],
      ArrowUp: ['ArrowUp', 38],
      ArrowDown: ['ArrowDown', 40],
      ArrowRight: ['ArrowRight', 39],
      Space: [' ', 32, ' '],
    };
    const letter = /^(Key|Digit)(.)$/.exec(name);
    const [key, code, text] = known[name] ?? [letter[2].toLowerCase(), letter[2].charCodeAt(0), undefined];
    const modifiers = (alt ? 1 : 0) | (control ? 2 : 0) | (shift ? 8 : 0);
    const base = { key, code: name, windowsVirtualKeyCode: code, modifiers };
    await this.send('Input.dispatchKeyEvent', {
      type: text && !modifiers ? 'keyDown' : 'rawKeyDown',
      text: modifiers ? undefined : text,
      ...base,
    });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...base });
  }

  async screenshot(path, { full = true } = {}) {
    const { data } = await this.send('Page.captureScreenshot', {
      format: 'png',
      captureBeyondViewport: full,
      ...(full ? { clip: await this.#whole() } : {}),
    });
    writeFileSync(path, Buffer.from(data, 'base64'));
  }

  async #whole() {
    const { cssContentSize: box } = await this.send('Page.getLayoutMetrics');
    return { x: 0, y: 0, width: box.width, height: box.height, scale: 1 };
  }

  // Problems since the last call.
  takeProblems() {
    return this.problems.splice(0);
  }

  async close() {
    this.browser.sessions.delete(this.session);
    await this.browser.send('Target.closeTarget', { targetId: this.target });
  }
}
