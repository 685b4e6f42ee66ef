"use strict";
// Arrays of numbers as head_map.py writes them.
const packing = (() => {
  const UNKNOWN = 65535;

  const inflated = async (text) => {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new DataView(await new Response(stream).arrayBuffer());
  };

  // Every packed array below a node is made readable.
  const open = async (node) => {
    if (node === null || typeof node !== "object") return;
    if (typeof node.values === "string" && "top" in node) node.shares = await inflated(node.values);
    else await Promise.all(Object.values(node).map(open));
  };

  // `count` numbers of a packed array, from the place `start` on.
  const read = ({ shares, top }, start, count) => Array.from({ length: count }, (_, place) => {
    const share = shares.getUint16(2 * (start + place), true);
    return share === UNKNOWN ? null : Number((share / (UNKNOWN - 1) * top).toPrecision(4));
  });

  return { open, read };
})();
