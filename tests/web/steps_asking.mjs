// The browser test's steps about asking: answers, streaming, bars, badges, sets, several pictures, a phone.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sleep, until } from './browser.mjs';
import {
  addSample,
  answers,
  ask,
  check,
  checkAnswers,
  equal,
  nameless,
  noProblems,
  writeQuestion,
  label,
  reuses,
} from './harness.mjs';
import { samples } from './page_data.mjs';

export async function askingSteps({ step, expected, shots, shot, key, url, only }) {
  await step('the policy is strict and the page comes whole', async (page) => {
    const { headers } = await fetch(`${url}/`);
    const policy = headers.get('content-security-policy') ?? '';
    check(/default-src 'self'/.test(policy) && !/unsafe-|\*/.test(policy), `Content-Security-Policy: ${policy}`);
    await until('the live panel', async () => (await page.text('#light-text')) !== 'connecting');
    equal(await page.evaluate('document.querySelectorAll("#samples img").length'), samples.length, 'samples');
    check(
      await page.evaluate('[...document.images].every((image) => image.complete && image.naturalWidth > 0)'),
      'a picture did not load',
    );
    await until('the version in the footer', async () => /^chiasm \d+\.\d+/.test(await page.text('#version')));
    equal(await nameless(page), [], 'controls without a name');
    noProblems(page);
  });

  // First of the steps with pictures, so that a fresh server looks at them here and the screenshot shows it.
  await step('moderation: four checks of four pictures, each on its own', async (page) => {
    const names = ['fire', 'code', 'night', 'cat'];
    for (const name of names) await addSample(page, name);
    await page.click('[data-set=moderation]');
    equal(await label(page), 'Ask 4 questions about 4 pictures', 'button');
    await ask(page);
    await checkAnswers(
      page,
      names.map((name) => expected[name]),
    );
    const badges = await page.evaluate(
      '[...document.querySelectorAll("thead .column .badge:not([hidden])")].map((badge) => badge.textContent)',
    );
    check(
      badges.length === 4 && badges.every((badge) => /^(looked at once|known already), reused [34] times$/.test(badge)),
      `badges: ${badges.join('; ')}`,
    );
    equal(
      await page.evaluate(
        'document.querySelector(".scroll").scrollWidth - document.querySelector(".scroll").clientWidth',
      ),
      0,
      'what four columns are too wide',
    );
    await shot(page, 'album');
    await page.click('.thumb:nth-child(2) .remove');
    await checkAnswers(
      page,
      ['fire', 'night', 'cat'].map((name) => expected[name]),
    );
    await page.click('#mode label:nth-of-type(1)');
    equal((await answers(page))[0][1].length, 1, 'columns together');
    await page.click('#clear-pictures');
    equal(await page.evaluate('document.querySelectorAll(".thumb").length'), 0, 'pictures');
    noProblems(page);
  });

  await step('a sample is looked at, five questions are answered while they stream', async (page) => {
    await addSample(page, 'balloon');
    check(
      /^\d+ tokens · (looked at in [\d.]+ m?s|known already)$/.test(await page.text('.thumb .note')),
      `note: ${await page.text('.thumb .note')}`,
    );
    equal(
      (await answers(page)).map(([question]) => question),
      samples[0].questions,
      'the questions of the sample',
    );
    equal(await label(page), 'Ask 5 questions', 'button');
    // Counts every growth of a cell's text: an answer that streams grows more than once.
    await page.evaluate(`(() => {
    window.grown = {};
    new MutationObserver((records) => {
      for (const {type, target, oldValue} of records) {
        const cell = (target.nodeType === 3 ? target.parentElement : target)?.closest('td');
        const row = cell?.closest('tr').rowIndex;
        if (row && (type === 'childList' ? target.matches('.text') : target.data.startsWith(oldValue))) window.grown[row] = (window.grown[row] ?? 0) + 1;
      }
    }).observe(document.querySelector('#rows'), {subtree: true, childList: true, characterData: true, characterDataOldValue: true});
  })()`);
    await ask(page);
    await checkAnswers(page, [expected.balloon]);
    const grown = await page.evaluate('window.grown');
    check(grown[1] >= 3, `the first answer grew ${grown[1]} times`);

    const source = page.uploads[0]?.source;
    const badge = await page.text('.badge');
    check(
      ['encoded', 'vision_server'].includes(source)
        ? badge.startsWith('looked at once, ')
        : badge.startsWith('known already, '),
      `badge "${badge}" after an upload from ${source}`,
    );
    const first = await reuses(page);
    // Where the prefix is kept from before, all five reuse it.
    check(first === 4 || first === 5, `badge: ${badge}`);

    const bars = await page.evaluate(`[...document.querySelectorAll('td.done')].map((cell) => ({
    widths: [...cell.querySelectorAll('svg.bar rect:not(.gap)')].map((rect) => parseFloat(rect.getAttribute('width'))),
    drawn: cell.querySelector('svg.bar').getBoundingClientRect().width,
    heard: cell.querySelector('svg.bar').getAttribute('aria-hidden') !== 'true',
    numbers: cell.querySelector('.numbers').textContent,
  }))`);
    equal(bars.length, 5, 'bars');
    for (const bar of bars) {
      check(bar.drawn > 50 && bar.widths.length > 0, `a bar is empty: ${JSON.stringify(bar)}`);
      check(!bar.heard, 'a screen reader hears the bar beside its numbers');
      check(
        /vision\s[\d.]+ m?s.*prefill\s[\d.]+ m?s.*decode\s[\d.]+ m?s/.test(bar.numbers),
        `the numbers say ${bar.numbers}`,
      );
    }
    const head = await page.evaluate(
      `[...document.querySelectorAll('thead rect')].map((rect) => parseFloat(rect.getAttribute('width')))`,
    );
    const longest = Math.max(...bars.map((bar) => bar.widths.reduce((sum, width) => sum + width, 0)), ...head);
    check(longest > 99 && longest < 102, `the longest bar is ${longest} % wide`);
    check(await page.visible('#legend'), 'no legend');
    check(
      /^5 answers in .* · [\d,]+ of [\d,]+ prompt tokens reused · \d+ written$/.test(await page.text('#summary')),
      `summary: ${await page.text('#summary')}`,
    );
    const heard = await page.text('#announcer');
    check(heard.includes(`Question 1: ${expected.balloon['Describe the picture.']}`), `announced: ${heard}`);

    if (shots) {
      await sleep(2500); // a stretch of the live panel's line
      await shot(page, 'desktop-light');
      await page.look('dark');
      await shot(page, 'desktop-dark');
      await page.look('light');
    }

    equal(await label(page), 'Ask again', 'button');
    await ask(page);
    check((await page.text('.badge')).startsWith(badge.split(',')[0]), `looked again: ${await page.text('.badge')}`);
    check((await reuses(page)) >= first + 5, `badge after asking again: ${await page.text('.badge')}`);
    noProblems(page);
  });

  await step('a phone, 360 pixels wide', async (page) => {
    await page.size(360, 740, { mobile: true, scale: 2 });
    await page.send('Emulation.setTouchEmulationEnabled', { enabled: true });
    await page.reload();
    const fits = async (what) =>
      equal(
        await page.evaluate(
          '[document.documentElement.scrollWidth, document.querySelector(".scroll").scrollWidth - document.querySelector(".scroll").clientWidth]',
        ),
        [360, 0],
        what,
      );
    await fits('widths of the empty page');
    await addSample(page, 'cars');
    await ask(page);
    await checkAnswers(page, [expected.cars]);
    await fits('widths with answers');
    await shot(page, 'phone');
    await addSample(page, 'fire');
    await page.click('[data-set=moderation]');
    await ask(page);
    await checkAnswers(page, [expected.cars, expected.fire]);
    await fits('widths with two columns');
    const small =
      await page.evaluate(`[...document.querySelectorAll('button, summary, input[type=checkbox]')].filter((node) => node.checkVisibility()).map((node) => [node.id || node.className, node.getBoundingClientRect()])
    .filter(([, box]) => box.width < 24 || (box.height < 24 && box.width < 100)).map(([name, box]) => name + ' ' + box.width + 'x' + box.height)`);
    equal(
      small.filter((one) => !one.startsWith('sure ')),
      [],
      'too small to touch',
    );
    noProblems(page, 401);
  });

  await step('only a new or changed question is asked; a reload keeps the questions', async (page) => {
    await addSample(page, 'cat');
    await ask(page);
    await writeQuestion(page, 'Is there a cat?');
    equal(await label(page), 'Ask 1 new question', 'button');
    await ask(page);
    equal(await checkAnswers(page, [expected.cat]), 6, 'questions');
    check(/^1 answer in/.test(await page.text('#summary')), `summary: ${await page.text('#summary')}`);
    await page.click('#rows tr:nth-child(6) textarea');
    await page.type('!');
    check(
      await page.evaluate('document.querySelector("#rows tr:nth-child(6) td").classList.contains("stale")'),
      'an answer to other words is not marked',
    );
    await page.press('Backspace');
    const before = (await answers(page)).map(([question]) => question);
    await page.reload();
    if (key) await until('the key in the tab', async () => !(await page.visible('#key-banner')));
    equal(
      (await answers(page)).map(([question]) => question),
      before,
      'questions after a reload',
    );
    await page.click('#rows tr:nth-child(2) .remove');
    await page.click('#clear-questions');
    check((await page.text('#summary')).includes('5 questions replaced. Undo'), 'no undo');
    await page.click('#summary .link');
    equal((await answers(page)).length, 5, 'questions after undo');
    noProblems(page);
  });

  await step('sets of questions: toy town, Chinese, compare two', async (page) => {
    await addSample(page, 'balloon');
    for (const set of ['toytown', 'chinese']) {
      await page.click(`[data-set=${set}]`);
      await ask(page);
      await checkAnswers(page, [expected.balloon]);
    }
    await addSample(page, 'code');
    await page.click('[data-set=compare]');
    equal(await page.evaluate('document.querySelector("#mode input:checked").value'), 'together', 'mode');
    await ask(page);
    await checkAnswers(page, [expected['balloon+code']]);
    check(
      /^(each looked at once|known already|1 known already, the rest looked at once|looked at)/.test(
        await page.text('.badge'),
      ),
      `badge: ${await page.text('.badge')}`,
    );
    noProblems(page);
  });
}
