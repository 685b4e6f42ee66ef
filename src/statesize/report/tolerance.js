"use strict";
// ESS against the relative tolerance, of a layer or of one of its heads.
const tolerance = (() => {
  const { byId } = drawing;

  const drawTolerance = (spec, layer, head, tokens, fill) => {
    const { ladder, heads } = layer;
    byId("tolerance-choices").hidden = !ladder;
    byId("tolerance").hidden = !ladder;
    if (!ladder) {
      drawing.clear("tolerance");
      byId("tolerance-caption").textContent = "This profile holds fewer than three relative tolerances, so there is no curve. "
        + "Profile with relative_tolerances=statesize.profiling.TOLERANCE_LADDER to have one; it costs next to nothing.";
      return null;
    }
    const { ratios, places } = ladder;
    const labels = places.map((position, index) => [index, `position ${position}, before ${tokens[position]}`]);
    fill(byId("place"), [[-1, "mean over positions and sequences"], ...labels]);
    const at = Number(byId("place").value);
    const curve = (packed, index, of) => positions.unpack(packed).slice(index * ratios.length, (index + 1) * ratios.length)
      .flatMap((ess, rung) => ess === null ? [] : [{ ratio: ratios[rung], ess, of }]);
    const rungs = heads.flatMap((name, index) => curve(ladder.heads, index, name).map((row) => ({ ...row, head: name })));
    const of = at >= 0 ? `mean over heads at position ${places[at]}` : head >= 0 ? heads[head] : "mean over the heads drawn";
    let rows = at >= 0 ? curve(ladder.at, at, of) : rungs.filter(({ head: name }) => name === heads[head]);
    if (at < 0 && head < 0) {
      rows = ratios.map((ratio) => {
        const values = rungs.filter((row) => row.ratio === ratio).map(({ ess }) => ess);
        return { ratio, ess: values.reduce((sum, value) => sum + value, 0) / values.length, of };
      });
    }
    byId("tolerance-caption").textContent = `${layer.name}: ${of}${at >= 0 ? " of the first sequence" : ""}`;
    return drawing.draw("tolerance", spec, { ladder: rows, rungs: at >= 0 ? [] : rungs });
  };

  return { drawTolerance };
})();
