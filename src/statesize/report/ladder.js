"use strict";
// ESS against the relative tolerance, and the singular values at one position, of a layer or of one of its heads.
const ladder = (() => {
  const { byId } = drawing;
  const MISSING = "This profile holds fewer than three relative tolerances, so there is no curve. Profile with "
    + "relative_tolerances=statesize.profiling.TOLERANCE_LADDER to have one.";

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
    const { ladder: { ratios, means, meansApart }, heads } = layer;
    const curve = (packed, index) => packing.read(packed, index * ratios.length, ratios.length);
    const curves = heads.map((_, index) => [curve(means, index), curve(meansApart, index)]);
    const of = head >= 0 ? heads[head] : "mean over the heads drawn";
    const rows = ratios.flatMap((ratio, rung) => {
      const all = curves.map(([lower, apart]) => [lower[rung], apart[rung]]).filter(([ess]) => ess !== null);
      const chosen = head >= 0 ? [curves[head].map((part) => part[rung])] : all;
      if (!all.length || chosen[0][0] === null) return [];
      const [lower, apart] = [0, 1].map((part) => chosen.reduce((sum, bounds) => sum + bounds[part], 0) / chosen.length);
      const said = drawing.between(lower + apart / 2, apart, (ess) => ess.toFixed(2));
      const [low, high] = [Math.min(...all.map(([ess]) => ess)), Math.max(...all.map(([ess, more]) => ess + more))];
      return [{ ratio, ess: lower + apart / 2, said, low, high, of }];
    });
    byId("tolerance-caption").textContent = `${layer.name}, ${of}, over all positions and sequences; the band holds all heads drawn`;
    return drawing.draw("tolerance", spec, { ladder: rows, band: rows });
  };

  // Which of the positions that the page holds is nearest.
  const nearest = ({ ladder: { places } }, position) => places.reduce((best, place, index) =>
    Math.abs(place - position) < Math.abs(places[best] - position) ? index : best, 0);

  // Lower and upper bounds of counts at the tolerances, ascending, of one head at one position.
  const countsAt = ({ ladder: { ratios, places, counts, countsApart }, heads }, sequence, head, place) => {
    const start = (sequence * heads.length + head) * ratios.length * places.length;
    const [lower, apart] = [counts, countsApart].map((packed) => packing.read(packed, start, ratios.length * places.length)
      .filter((_, index) => index % places.length === place).map((count) => count === null ? null : Math.round(count)));
    return lower.map((count, rung) => count === null ? null : [count, count + apart[rung]]);
  };

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
    // So many values exceed each ratio, and the largest is the ratio 1. The curve falls where ratios have one count.
    const rows = [...ratios, 1].map((ratio, rung) => {
      const counts = all.map((one) => one[rung] ?? one[0].map((count) => Math.min(1, count)));
      const middles = counts.map(([low, high]) => (low + high) / 2);
      const index = head >= 0 ? middles[head] : middles.reduce((sum, count) => sum + count, 0) / middles.length;
      return { ratio, index, low: Math.min(...counts.map(([low]) => low)), high: Math.max(...counts.map(([, high]) => high)) };
    }).reverse();
    const [low, high] = head >= 0 ? all[head][0] : [];
    if (head >= 0) caption.textContent += `: ${low === high ? low : `${low}–${high}`} above ${ratios[0].toExponential(0)} of the largest`;
    caption.textContent += "; the band holds all heads drawn";
    return drawing.draw("spectrum", spec, { values: rows, band: rows });
  };

  return { drawSpectrum, drawTolerance };
})();
