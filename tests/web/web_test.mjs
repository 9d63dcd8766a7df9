// Does in headless Chromium what a person does on the page that `chiasm serve` shows, and checks what comes of it:
// answers, badge, bars, streaming, ways in, keyboard, looks, phone, errors, key; no console error and no violation of
// the Content-Security-Policy on the way.
//
//   node tests/web/web_test.mjs [--url http://localhost:8080] [--key KEY] [--expect FILE] [--shots FOLDER] [--only WORD]
//
// Without --url it starts fake_server.mjs, which can also fail on demand; with --url it tests a real server with the
// demo model, whose pictures need not be new to it. FILE has the right answers: {"sample": {"question": "answer"}}.
// --key is for a server that wants one. FOLDER gets desktop-light.png, desktop-dark.png, album.png, phone.png, phone-each.png.
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Browser, findBrowser, until } from './browser.mjs';
import { FakeServer } from './fake_server.mjs';
import { Report, equal } from './harness.mjs';
import { askingSteps } from './steps_asking.mjs';
import { failingSteps } from './steps_failing.mjs';
import { layoutSteps } from './steps_layout.mjs';
import { pageSteps } from './steps_page.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const option = (name) => (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : '');
const report = new Report();
const browserPath = findBrowser();
if (!browserPath) {
  console.log('skipped: there is no chromium here; packages/clients.txt names what to install');
  console.log('0 passed, 0 failed');
  process.exit(0);
}

const expected = JSON.parse(readFileSync(option('--expect') || join(here, 'expected.json'), 'utf8'));
const shots = option('--shots');
if (shots) mkdirSync(shots, { recursive: true });
const key = option('--key');
const fake = option('--url') ? null : new FakeServer({ pace: 0.5 });
const url = (option('--url') || (await fake.listen())).replace(/\/$/, '');
const origin = new URL(url).origin;
const browser = new Browser(browserPath);
const only = option('--only');

// A step in a context of its own: nothing is left of the step before.
async function step(name, work) {
  if (only && !name.includes(only)) return;
  let page;
  await report.step(name, async () => {
    page = await browser.page();
    try {
      await page.look('light');
      await open(page, url, key);
      await work(page);
      equal(
        page.requests.filter(
          (one) =>
            !one.startsWith(origin) && !one.startsWith('blob:') && !one.startsWith('data:') && one !== 'about:blank',
        ),
        [],
        'requests to others',
      );
    } catch (error) {
      if (shots) await page.screenshot(join(shots, 'failed.png')).catch(() => {});
      throw error;
    }
  });
  await page?.close();
}

async function open(page, address, withKey) {
  await page.go(`${address}/`);
  if (!withKey) return;
  await until('the key banner', () => page.visible('#key'));
  await page.click('#key');
  await page.type(withKey);
  await page.press('Enter');
  await until('the key to be taken', async () => !(await page.visible('#key-banner')));
  page.takeProblems();
}

async function shot(page, name) {
  if (!shots) return;
  // The mouse leaves whatever it would mark.
  await page.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x: 0, y: 0 });
  await page.screenshot(join(shots, `${name}.png`));
}
const run = { step, report, browser, expected, shots, shot, key, url, origin, fake, only };
await askingSteps(run);
await pageSteps(run);
await layoutSteps(run);
await failingSteps(run);

await browser.close();
fake?.close();
if (report.skipped > 0) console.log(`${report.skipped} skipped`);
console.log(`${report.passed} passed, ${report.failed} failed`);
process.exit(report.failed > 0 ? 1 : 0);
