// How often pictures were looked at and reused, counted from what the server says: the sources in the vision array
// (and in the answer to an upload), and the cached tokens of each answer. Pure: no page, no network.

// The sources that mean: the vision encoder ran now.
const kLooked = new Set(['encoded', 'vision_server']);
// The prefix cache keeps whole blocks; the last of a picture's tokens may lie in one that is not full.
const kBlockRest = 31;

export function newSight() {
  return { looks: 0, ms: 0, tokens: 0, known: '' };
}

// One entry of a vision array, or the answer to an upload.
export function countLook(sight, entry) {
  if (entry.tokens > 0) sight.tokens = entry.tokens;
  if (kLooked.has(entry.source)) {
    sight.looks += 1;
    sight.ms += entry.ms > 0 ? entry.ms : 0;
  } else if (sight.looks === 0) {
    sight.known = entry.source || '';
  }
}

// Whether an answer took all these pictures' tokens from the prefix cache.
export function isReuse(cachedTokens, sights) {
  const tokens = sights.reduce((sum, sight) => sum + sight.tokens, 0);
  return tokens > 0 && cachedTokens >= Math.max(1, tokens - kBlockRest);
}

function times(n) {
  return n === 1 ? 'once' : n === 2 ? 'twice' : `${n} times`;
}

function reusedTimes(n) {
  return n === 0 ? 'not reused yet' : `reused ${n === 1 ? 'once' : `${n} times`}`;
}

// "looked at once, reused 4 times"
export function badgeText(sights, reuses) {
  const looks = sights.map((sight) => sight.looks);
  const most = Math.max(...looks);
  const least = Math.min(...looks);
  let seen;
  if (most === 0) seen = 'known already';
  else if (sights.length === 1) seen = `looked at ${times(most)}`;
  else if (most === least) seen = `each looked at ${times(most)}`;
  else if (most === 1) seen = `${looks.filter((n) => n === 0).length} known already, the rest looked at once`;
  else seen = `looked at ${times(looks.reduce((sum, n) => sum + n, 0))} in all`;
  return `${seen}, ${reusedTimes(reuses)}`;
}

const kWhere = {
  memory: 'was in the server’s memory',
  disk: 'was on the server’s disk',
  request: 'came with the request',
};

// The same in whole sentences, for the tool tip and for those who listen.
export function badgeDetail(sights, reuses, answers) {
  const looks = sights.reduce((sum, sight) => sum + sight.looks, 0);
  const ms = sights.reduce((sum, sight) => sum + sight.ms, 0);
  const tokens = sights.reduce((sum, sight) => sum + sight.tokens, 0);
  const first =
    looks > 0
      ? `The vision encoder ran ${times(looks)}, ${Math.round(ms)} ms in all.`
      : `The vision encoder did not run: what it saw ${kWhere[sights[0].known] || 'was known'}.`;
  if (answers === 0) return first;
  return `${first} ${reuses} of ${answers} answers took the ${tokens} image tokens from the prefix cache.`;
}
