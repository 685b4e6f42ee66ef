"use strict";
// Counts against the relative tolerance, of a layer or of one of its heads.
const tolerance = (() => {
  const { byId } = drawing;
  const MISSING = "This profile holds fewer than three relative tolerances, so there is no curve. Profile with "
    + "relative_tolerances=statesize.profiling.TOLERANCE_LADDER to have one.";

  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

  const row = (ratio, [low, high]) => ({ ratio, low, high, ess: (low + high) / 2 });

  const draw = (spec, { layer: { name: layer, heads, tolerances }, head, name }) => {
    byId("tolerance").hidden = !tolerances;
    byId("tolerance-caption").textContent = tolerances
      ? `${layer}, ${name ?? "mean over the heads drawn"}, over the measured cuts of all sequences` : MISSING;
    if (!tolerances) {
      drawing.clear("tolerance");
      return null;
    }
    const { ratios, means, apart } = tolerances;
    const curve = (packed, index) => packing.read(packed, index * ratios.length, ratios.length);
    // Bounds of each head at each ratio, and of the head chosen, or means over all.
    const all = heads.map((_, index) => [curve(means, index), curve(apart, index)])
      .map(([lower, gaps]) => lower.map((low, rung) => [low, low + gaps[rung]]));
    const chosen = head >= 0 ? all[head] : ratios.map((_, rung) => [0, 1].map((end) => mean(all.map((bounds) => bounds[rung][end]))));
    const rows = chosen.map((bounds, rung) => row(ratios[rung], bounds));
    const rungs = all.flatMap((bounds, index) => bounds.map((ends, rung) => ({ head: heads[index], ...row(ratios[rung], ends) })));
    const datasets = { rungs: heads.length > 1 ? rungs : [], ladder: rows, bounds: rows.filter(({ low, high }) => low < high) };
    return drawing.draw("tolerance", drawing.filled(spec, datasets, name));
  };

  return { draw };
})();
