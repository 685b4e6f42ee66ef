"use strict";
// ESS against the relative tolerance, and the singular values at one position, of a layer or of one of its heads.
const ladder = (() => {
  const { between, byId } = drawing;
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

  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

  // Bounds at each ratio of the head chosen, or means over all.
  const chosenOf = (all, head) => head >= 0 ? all[head] : all[0].map((_, rung) => [0, 1].map((end) => mean(all.map((one) => one[rung][end]))));

  const row = (ratio, [low, high]) => ({ ratio, low, high, ess: (low + high) / 2, said: between((low + high) / 2, high - low, (ess) => ess.toFixed(2)) });

  const drawTolerance = (spec, { layer, head, name }) => {
    if (missing(layer, "tolerance")) return null;
    const { ladder: { ratios, means, meansApart }, heads } = layer;
    const curve = (packed, index) => packing.read(packed, index * ratios.length, ratios.length);
    const all = heads.map((_, index) => [curve(means, index), curve(meansApart, index)])
      .map(([lower, apart]) => lower.map((low, rung) => [low, low + apart[rung]]));
    const rows = chosenOf(all, head).map((bounds, rung) => row(ratios[rung], bounds));
    const rungs = all.flatMap((one, index) => one.map((bounds, rung) => ({ head: heads[index], ...row(ratios[rung], bounds) })));
    byId("tolerance-caption").textContent = `${layer.name}, ${name ?? "mean over the heads drawn"}, over the measured cuts of all sequences`;
    const datasets = { rungs: heads.length > 1 ? rungs : [], ladder: rows, bounds: rows.filter(({ low, high }) => low < high) };
    return drawing.draw("tolerance", drawing.filled(spec, datasets, name));
  };

  // Lower and upper bounds of counts at the tolerances, ascending, of one head at one position.
  const countsAt = ({ ladder: { ratios, places, counts, countsApart }, heads }, sequence, head, place) => {
    const start = (sequence * heads.length + head) * ratios.length * places.length;
    const [lower, apart] = [counts, countsApart].map((packed) => packing.read(packed, start, ratios.length * places.length)
      .filter((_, index) => index % places.length === place).map((count) => count === null ? null : Math.round(count)));
    return lower.map((count, rung) => count === null ? null : [count, count + apart[rung]]);
  };

  // Which of the positions that the page holds is nearest, of those that were measured in a sequence.
  const nearest = (layer, sequence, position) => {
    const { places } = layer.ladder;
    const known = [...places.keys()].filter((index) => !countsAt(layer, sequence, 0, index).includes(null));
    return known.reduce((best, index) =>
      Math.abs(places[index] - position) < Math.abs(places[best] - position) ? index : best, known[0] ?? 0);
  };

  const drawSpectrum = (spec, { layer, sequence, head, name }, position, tokens) => {
    if (missing(layer, "spectrum")) return null;
    const { ladder: { ratios, places }, heads } = layer;
    const place = nearest(layer, sequence, position);
    const at = places[place];
    byId("at").value = at;
    const counts = heads.map((_, index) => countsAt(layer, sequence, index, place));
    const caption = byId("spectrum-caption");
    caption.textContent = `${layer.name}, ${name ?? "mean over the heads drawn"}, position ${at} of sequence ${sequence + 1}, before ${tokens[at] ?? "the end"}`;
    if (counts.some((one) => one.includes(null))) {
      drawing.clear("spectrum");
      caption.textContent += ": nothing was measured there.";
      return null;
    }
    if (name) caption.textContent += `: ${between(...middle(counts[head][0]), String)} above ${ratios[0].toExponential(0)} of the largest`;
    // So many values exceed each ratio, and the largest is the ratio 1. The curve falls where ratios have one count.
    const all = counts.map((one) => [...one, one[0].map((count) => Math.min(1, count))]);
    const line = (one) => one.map(([low, high], rung) => ({ ratio: [...ratios, 1][rung], index: (low + high) / 2, low, high })).reverse();
    const values = line(chosenOf(all, head));
    const lines = all.flatMap((one, index) => line(one).map((value) => ({ head: heads[index], ...value })));
    const datasets = { lines: heads.length > 1 ? lines : [], values, bounds: values.filter(({ low, high }) => low < high) };
    return drawing.draw("spectrum", drawing.filled(spec, datasets, name));
  };
  const middle = ([low, high]) => [(low + high) / 2, high - low];

  return { drawSpectrum, drawTolerance };
})();
