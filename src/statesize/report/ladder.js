"use strict";
// ESS against the relative tolerance, and the singular values at one position, of a layer or of one of its heads.
const ladder = (() => {
  const { byId } = drawing;
  const MISSING = "This profile holds fewer than three relative tolerances, so there is no curve. Profile with "
    + "relative_tolerances=statesize.profiling.TOLERANCE_LADDER to have one; it costs next to nothing.";

  // Nothing is drawn of a profile that has no ladder.
  const missing = ({ ladder: found }, id) => {
    byId(id).hidden = !found;
    if (found) return false;
    drawing.clear(id);
    byId(`${id}-caption`).textContent = MISSING;
    return true;
  };

  const drawTolerance = (spec, layer, head) => {
    if (missing(layer, "tolerance")) return null;
    const { ladder: { ratios, means }, heads } = layer;
    const rungs = heads.flatMap((name, index) => packing.read(means, index * ratios.length, ratios.length)
      .flatMap((ess, rung) => ess === null ? [] : [{ ratio: ratios[rung], ess, head: name }]));
    const of = head >= 0 ? heads[head] : "mean over the heads drawn";
    const rows = ratios.map((ratio) => {
      const values = rungs.filter((row) => row.ratio === ratio && (head < 0 || row.head === heads[head]));
      return { ratio, ess: values.reduce((sum, { ess }) => sum + ess, 0) / values.length, of };
    }).filter(({ ess }) => Number.isFinite(ess));
    byId("tolerance-caption").textContent = `${layer.name}, ${of}, over all positions and sequences`;
    return drawing.draw("tolerance", spec, { ladder: rows, rungs });
  };

  // Which of the positions that the page holds is nearest.
  const nearest = ({ ladder: { places } }, position) => places.reduce((best, place, index) =>
    Math.abs(place - position) < Math.abs(places[best] - position) ? index : best, 0);

  // Counts at the tolerances, ascending, of one head at one position.
  const countsAt = ({ ladder: { ratios, places, counts }, heads }, sequence, head, place) => {
    const start = (sequence * heads.length + head) * ratios.length * places.length;
    return packing.read(counts, start, ratios.length * places.length)
      .filter((_, index) => index % places.length === place).map((count) => count === null ? null : Math.round(count));
  };

  // The m-th value exceeds the tolerances whose count is at least m, and no other.
  const intervals = (ratios, counts) => Array.from({ length: counts[0] }, (_, before) => {
    const index = before + 1;
    const above = counts.filter((count) => count >= index).length;
    return { index, low: index === 1 ? 1 : ratios[above - 1], high: index === 1 ? 1 : ratios[above] ?? 1 };
  });

  const drawSpectrum = (spec, layer, sequence, head, position, tokens) => {
    if (missing(layer, "spectrum")) return null;
    const { ladder: { ratios, places }, heads } = layer;
    const place = nearest(layer, position);
    const at = places[place];
    byId("at").value = at;
    const all = heads.map((_, index) => countsAt(layer, sequence, index, place));
    const where = `position ${at} of sequence ${sequence + 1}, before ${tokens[at] ?? "the end"}`;
    const caption = byId("spectrum-caption");
    caption.textContent = `${layer.name}, ${head >= 0 ? heads[head] : "each head drawn"}, ${where}`;
    if (all.some((counts) => counts.includes(null))) {
      drawing.clear("spectrum");
      caption.textContent += ": nothing was measured there.";
      return null;
    }
    const ranges = all.map((counts) => intervals(ratios, counts));
    const lines = ranges.flatMap((range, place) => range.map(({ index, low, high }) =>
      ({ index, ratio: Math.sqrt(low * high), head: heads[place] })));
    const values = ranges[head] ?? [];
    const chart = structuredClone(spec);
    if (head < 0) chart.layer.pop();
    if (head >= 0) caption.textContent += `: ${values.length} above ${ratios[0].toExponential(0)} of the largest`;
    return drawing.draw("spectrum", chart, { values, lines });
  };

  return { drawSpectrum, drawTolerance };
})();
