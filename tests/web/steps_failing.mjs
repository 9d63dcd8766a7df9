// The browser test's steps about what goes wrong: failing questions, a full server, cancelling, lost pictures, a key, no
// server. Most need the stand-in, which fails on demand.
import { until } from './browser.mjs';
import { FakeServer } from './fake_server.mjs';
import {
  addSample,
  answers,
  ask,
  check,
  checkAnswers,
  equal,
  finish,
  noProblems,
  thumbs,
  writeQuestion,
  label,
} from './harness.mjs';
import { samples } from './page_data.mjs';

export async function failingSteps({ step, report, browser, expected, key, url, fake, only }) {
  // What only the stand-in does on demand.
  const failing = async (name, work) =>
    fake ? step(name, work) : report.skip(name, 'a real server does not fail on demand');

  await failing('one question fails, the others are answered', async (page) => {
    await addSample(page, 'cat');
    await writeQuestion(page, '!fail');
    await ask(page);
    const got = await answers(page);
    equal(
      got.slice(0, 5),
      samples.find((one) => one.name === 'cat').questions.map((question) => [question, [expected.cat[question]]]),
      'answers',
    );
    check(
      /failed/.test(got[5][1][0]) && /longer than the model can take.*Use fewer or smaller pictures/.test(got[5][1][0]),
      `cell: ${got[5][1][0]}`,
    );
    check((await page.text('#summary')).includes('1 question failed'), `summary: ${await page.text('#summary')}`);
    equal(await label(page), 'Ask 1 new question', 'button');
    noProblems(page);
  });

  await step('a question that is too long fails in its row, the others are answered', async (page) => {
    await addSample(page, 'cat');
    const long = ' Why?'.repeat(3900);
    await page.click('#rows tr:nth-child(2) textarea');
    await page.type(long);
    await writeQuestion(page, long.trim());
    await ask(page);
    const rows = (await answers(page)).map(([question, [answer]]) => ({ question, answer }));
    const bad = rows.filter(({ question }) => question.length > 1000);
    equal(bad.length, 2, 'questions that are too long');
    for (const { answer } of bad) check(/failed.*longer than the model can take/.test(answer), `cell: ${answer}`);
    const good = rows.filter((row) => !bad.includes(row));
    equal(
      good.map(({ answer }) => answer),
      good.map(({ question }) => expected.cat[question]),
      'answers',
    );
    check((await page.text('#summary')).includes('2 questions failed'), `summary: ${await page.text('#summary')}`);
    noProblems(page, 400);
  });

  await failing('a small server is not overrun: pictures and questions wait for it', async (page) => {
    await fetch(`${url}/fake/forget`, { method: 'POST' });
    fake.room = 0;
    try {
      const names = await page.evaluate(`(() => {
        window.waits = new Set();
        new MutationObserver(() => {
          for (const place of document.querySelectorAll('.thumb .note, td .trouble'))
            if (/Waiting for the server; trying again in \\d+ s/.test(place.textContent)) waits.add(place.className);
        }).observe(document.body, {subtree: true, childList: true, characterData: true});
        return [...document.querySelectorAll('[data-sample]')].map((button) => (button.click(), button.dataset.sample));
      })()`);
      await until('a picture that waits', () => page.evaluate('waits.has("note")'));
      fake.room = 1;
      await thumbs(page, names.length);
      await page.click('#mode label:nth-of-type(2)');
      await ask(page);
      const order = await page.evaluate('[...document.querySelectorAll(".thumb .name")].map((one) => one.textContent)');
      await checkAnswers(
        page,
        order.map((name) => expected[/sample-(\w+)/.exec(name)[1]]),
      );
      check(await page.evaluate('waits.has("trouble")'), 'no answer told of waiting');
      fake.room = 0;
      await page.click('#ask');
      await until('the notice', async () => (await page.text('#rows td')).includes('Waiting for the server'));
      await page.press('Escape');
      await finish(page);
      check((await page.text('#summary')).includes('cancelled'), `summary: ${await page.text('#summary')}`);
    } finally {
      fake.room = Infinity;
    }
    noProblems(page, 503);
  });

  await failing('a full server is asked again, a broken stream is told', async (page) => {
    await addSample(page, 'cat');
    await page.click('#clear-questions');
    await writeQuestion(page, 'Is there a dog? !busy');
    await page.click('#ask');
    await until('the notice', async () => (await page.text('#rows td')).includes('trying again in 1 s'));
    await finish(page);
    equal((await answers(page))[0][1], ['A town with no name.'], 'answer');
    await page.click('#clear-questions');
    await writeQuestion(page, 'Is there a bird? !late');
    await writeQuestion(page, 'Read the sign.');
    await ask(page);
    equal(
      (await answers(page)).map(([, [answer]]) => answer),
      ['A town with no name.', expected.cat['Read the sign.']],
      'answers, one of them asked twice',
    );
    await page.click('#clear-questions');
    await writeQuestion(page, 'Read the sign. !cut');
    await ask(page);
    const [, [cell]] = (await answers(page))[0];
    check(
      /failed.*cannot be reached.*still running/.test(cell) || /failed.*ended in the middle/.test(cell),
      `cell: ${cell}`,
    );
    await writeQuestion(page, 'Read the sign.');
    await page.click('#rows tr:first-child .remove');
    await ask(page);
    await checkAnswers(page, [expected.cat]);
    page.problems = page.problems.filter((problem) => !problem.includes('ERR_'));
    noProblems(page, 503);
  });

  await failing('cancel, by Esc and by button', async (page) => {
    await addSample(page, 'cat');
    await writeQuestion(page, 'Read it !slow');
    for (const way of [() => page.press('Escape'), () => page.click('#cancel')]) {
      await page.click('#ask');
      await until('the other answers', () => page.evaluate('document.querySelectorAll("td.done").length === 5'));
      await way();
      await finish(page);
      check((await page.text('#rows tr:nth-child(6) td')).includes('Cancelled.'), 'no word in the cell');
      check((await page.text('#summary')).includes('cancelled'), `summary: ${await page.text('#summary')}`);
    }
    noProblems(page);
  });

  await failing('a picture that the server forgot is uploaded again', async (page) => {
    await addSample(page, 'cars');
    await fetch(`${url}/fake/forget`, { method: 'POST' });
    await ask(page);
    await checkAnswers(page, [expected.cars]);
    check(
      (await page.text('.badge')).startsWith('looked at twice') ||
        (await page.text('.badge')).startsWith('looked at once'),
      `badge: ${await page.text('.badge')}`,
    );
    noProblems(page, 404);
  });

  // A server with a key: the stand-in's, or the real one when it wants a key.
  const locked = fake ? new FakeServer({ key: 'sesame-42', pace: 0.3 }) : null;
  const lockedUrl = locked ? await locked.listen() : key ? url : '';
  const rightKey = locked ? 'sesame-42' : key;
  if (!lockedUrl) report.skip('an API key is asked for', 'the server wants none; give --key with one that does');
  else if (!only || 'an API key is asked for'.includes(only)) {
    await report.step('an API key is asked for, refused and taken', async () => {
      const page = await browser.page();
      await page.look('light');
      await page.go(`${lockedUrl}/`);
      await until('the banner', () => page.visible('#key-banner'));
      await until('the word in the head', async () => (await page.text('#light-text')) === 'needs a key');
      check(!(await page.visible('.foot a')), 'links that would end at a refusal');
      await page.click('[data-sample=balloon]');
      await until('the refusal', () => page.evaluate('!!document.querySelector(".thumb[data-status=failed]")'));
      await page.click('#ask');
      await until('the focus', async () => (await page.focused()) === '#key');
      await finish(page);
      check((await page.text('#rows td')).includes('Enter the API key above'), `cell: ${await page.text('#rows td')}`);
      await page.click('#key');
      await page.type('ключ');
      await page.press('Enter');
      await until('the word about the letters', async () => (await page.text('#key-text')).includes('beyond A to Z'));
      await page.evaluate('document.querySelector("#key").select()');
      await page.type('wrong');
      await page.press('Enter');
      await until('the refusal of a wrong key', async () => (await page.text('#key-text')).includes('does not take'));
      await page.evaluate('document.querySelector("#key").select()');
      await page.click('#key');
      await page.evaluate('document.querySelector("#key").select()');
      await page.type(rightKey);
      await page.press('Enter');
      await until('the banner to go', async () => !(await page.visible('#key-banner')));
      equal(await page.focused(), '#ask', 'focus after the key');
      await thumbs(page, 1);
      await ask(page);
      await checkAnswers(page, [expected.balloon]);
      check(await page.visible('.foot a'), 'no links with the key');
      check(
        !(await page.evaluate('JSON.stringify(localStorage)')).includes(rightKey),
        'the key is kept beyond the tab',
      );
      await page.click('#copy');
      check(!(await page.text('#copy-code')).includes(rightKey), 'the key is in the code unasked');
      await page.click('#copy-key');
      check((await page.text('#copy-code')).includes(rightKey), 'the key is not in the code when asked for');
      await page.press('Escape');
      await page.click('#settings summary');
      await page.click('#forget-key');
      equal(await page.focused(), 'summary.', 'focus after the key was forgotten');
      noProblems(page, 401);
      await page.close();
    });
  }

  if (fake && (!only || 'gone'.includes(only))) {
    const page = await browser.page();
    await report.step('a server that is gone', async () => {
      await page.go(`${lockedUrl}/`);
      await until('the banner', () => page.visible('#key-banner'));
      locked.close();
      await until('the word', async () => (await page.text('#light-text')) === 'offline');
      await until('the advice', async () => (await page.text('#live-trouble')).includes('does not answer'));
    });
    await page.close();
  }
}
