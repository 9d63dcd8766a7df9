// The browser test's steps about what must stay in place: the page beside a wide table, the reader's place, the rows while
// answers come in, the answers while pictures are added, and all of it on a phone.
import { until } from './browser.mjs';
import {
  addSample,
  answers,
  ask,
  check,
  equal,
  finish,
  giveFile,
  noProblems,
  thumbs,
  writeQuestion,
} from './harness.mjs';
import { samples } from './page_data.mjs';

const kHeights = '[...document.querySelectorAll("#table tr")].map((row) => row.getBoundingClientRect().height)';
const overflow = (selector) =>
  `(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.querySelector('${selector}'))`;

export async function layoutSteps({ step, shot, expected }) {
  await step('many pictures: the table scrolls, the page does not', async (page) => {
    for (const { name } of samples) await addSample(page, name);
    await page.click('#mode label:nth-of-type(2)');
    await ask(page);
    for (const width of [1280, 820]) {
      await page.size(width, 900);
      equal(await page.evaluate(overflow('html')), 0, `what the page is too wide at ${width}`);
      check((await page.evaluate(overflow('.scroll'))) > 0, `the table has nothing to scroll at ${width}`);
    }
    // The border between two questions is drawn in the column that stays in place.
    equal(
      await page.evaluate('getComputedStyle(document.querySelector("table")).borderCollapse'),
      'separate',
      'borders of the column that stays',
    );
    const names = await page.evaluate(
      '[...document.querySelectorAll("#rows .remove")].map((button) => button.getAttribute("aria-label"))',
    );
    equal(names.length, new Set(names).size, `names of the remove buttons: ${names}`);
    equal(
      await page.evaluate(
        '[...document.querySelectorAll("td .number:not(.zero) .phase")].every((one) => one.checkVisibility())',
      ),
      true,
      'the phases have their names beside the colours',
    );
    noProblems(page);
  });

  await step('four pictures with long names fit', async (page) => {
    for (const [i, name] of ['fire', 'code', 'night', 'cat'].entries()) {
      const from = `/web/sample-${name}.png`;
      await giveFile(page, 'drop', { from, name: `${i} a picture with quite a long name.png`, type: 'image/png' });
      await thumbs(page, i + 1);
    }
    await page.click('[data-set=moderation]');
    await ask(page);
    equal(await page.evaluate(overflow('.scroll')), 0, 'what four columns are too wide');
    noProblems(page);
  });

  await step('who reads elsewhere is not taken back when the last answer comes', async (page) => {
    await addSample(page, 'cat');
    for (let i = 0; i < 14; ++i) await writeQuestion(page, `Is there a cat? ${i}`);
    await page.click('#ask');
    equal(await page.focused(), '#cancel', 'focus while it answers');
    await page.evaluate('scrollTo({ top: 40, behavior: "instant" })');
    await finish(page);
    equal(await page.evaluate('scrollY'), 40, 'where the reader was');
    equal(await page.focused(), '#ask', 'focus');
    await page.click('#ask');
    await page.click('#rows textarea');
    await finish(page);
    check((await page.focused()).startsWith('textarea'), `focus went to ${await page.focused()}`);
    noProblems(page);
  });

  await step('nothing moves while answers come in, but for their own text', async (page) => {
    for (const [width, mobile] of [
      [1280, false],
      [390, true],
    ]) {
      await page.size(width, 900, { mobile });
      await page.reload();
      await addSample(page, 'cat');
      await page.click('#clear-questions');
      for (const question of ['Is there a cat?', 'Where is the cat?', 'Read the sign.'])
        await writeQuestion(page, question);
      await page.click('#ask');
      await until('the waiting answers', () => page.evaluate('!!document.querySelector("td.waiting, td.streaming")'));
      const before = await page.evaluate(kHeights);
      await finish(page);
      equal(await page.evaluate(kHeights), before, `heights of the rows at ${width}`);
    }
    noProblems(page, 401);
  });

  await step('a further picture leaves the answers to be read, marked as of the earlier ones', async (page) => {
    await addSample(page, 'cat');
    await page.click('#clear-questions');
    await writeQuestion(page, 'Read the sign.');
    await ask(page);
    const summary = await page.text('#summary');
    await addSample(page, 'fire');
    equal((await answers(page))[0][1], [expected.cat['Read the sign.']], 'answer');
    check((await page.text('#rows td .chips')).includes('about the earlier pictures'), 'the answer is not marked');
    check(
      await page.evaluate('document.querySelector("#rows td").classList.contains("stale")'),
      'the answer looks fresh',
    );
    equal(
      [await page.text('#summary'), await page.text('#ask-label')],
      [summary, 'Ask 1 question'],
      'summary and button',
    );
    await page.click('#clear-pictures');
    equal([await page.text('#summary'), await page.text('#rows td .text')], ['', ''], 'summary and answer');
    noProblems(page);
  });

  await step('a phone shows the badges of each picture and the whole copy dialog', async (page) => {
    await page.size(360, 740, { mobile: true, scale: 2 });
    await page.send('Emulation.setTouchEmulationEnabled', { enabled: true });
    await page.reload();
    for (const name of ['cars', 'fire']) await addSample(page, name);
    await page.click('[data-set=moderation]');
    await ask(page);
    equal(
      await page.evaluate(
        '[".badge", "thead .track"].map((what) => [...document.querySelectorAll(what)].filter((one) => one.checkVisibility()).length)',
      ),
      [2, 2],
      'badges and vision bars',
    );
    await shot(page, 'phone-each');
    await page.click('#copy');
    for (const place of ['#copy-tabs', '#copy-dialog'])
      equal(await page.evaluate(overflow(place)), 0, `what ${place} is too wide`);
    noProblems(page, 401);
  });
}
