// The page's samples and sets as the page itself has them. Node takes a .js file without a package.json for CommonJS,
// so the module is read and imported as what it is.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const web = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'web');

// A module of the page that imports no other.
export function importPage(name) {
  return import(`data:text/javascript;base64,${readFileSync(join(web, name)).toString('base64')}`);
}

export const { samples, presets } = await importPage('samples.js');
