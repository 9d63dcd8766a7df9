// What kind of picture a file is that this server takes none of: phones write HEIC, the web AVIF, and often the browser
// knows no type for them. Their first box says it (ISO/IEC 14496-12, ISO/IEC 23008-12).

const kBrands = [
  [/^hei[cxms]|^hev[cxms]/, 'HEIC'],
  [/^avi[fs]/, 'AVIF'],
  [/^mif1|^msf1/, 'HEIF'],
];
const kBytes = 64; // the major brand and some of the compatible ones

// 'HEIC', 'AVIF', 'HEIF', or '' for everything else.
export async function foreignKind(file) {
  const head = new TextDecoder('latin1').decode(await file.slice(0, kBytes).arrayBuffer());
  if (head.slice(4, 8) !== 'ftyp') return '';
  // The major brand, then those that it is compatible with: "mif1" alone says little.
  const brands = [head.slice(8, 12), ...(head.slice(16).match(/.{4}/gs) ?? [])];
  for (const [brand, kind] of kBrands) if (brands.some((one) => brand.test(one))) return kind;
  return '';
}
