"use strict";
// The charts of a result: as wide as the page, and one below the other where the screen is narrow.
(() => {
  const { data: charts, narrow } = drawing;
  const [AXIS, SPACING] = [66, 20];

  // A row of charts may hold the data of all of them.
  const stacked = (spec, data) => {
    const inherited = spec.data ?? data;
    const parts = spec.hconcat ?? spec.vconcat;
    return parts ? parts.flatMap((chart) => stacked(chart, inherited)) : [inherited ? { ...spec, data: inherited } : spec];
  };

  const fitted = (spec, width) => {
    if (spec.vconcat) return { ...spec, vconcat: spec.vconcat.map((chart) => fitted(chart, width)) };
    if (!spec.hconcat) return spec.width > width - AXIS ? { ...spec, width: width - AXIS } : spec;
    const widths = spec.hconcat.map((chart) => chart.width ?? 200);
    const share = (width - (AXIS + SPACING) * widths.length) / widths.reduce((sum, each) => sum + each, 0);
    return { ...spec, hconcat: spec.hconcat.map((chart, index) => fitted(chart, share * widths[index] + AXIS)) };
  };

  const drawOne = ({ id, clientWidth }) => {
    const { data, hconcat, vconcat, ...rest } = structuredClone(charts[id]);
    const spec = narrow() && (hconcat || vconcat) ? { ...rest, vconcat: stacked({ data, hconcat, vconcat }) } : charts[id];
    const legend = { orient: "top", columns: narrow() ? 1 : 4 };
    return drawing.draw(id, { ...fitted(spec, clientWidth), config: { ...charts[id].config, legend } });
  };

  const drawAll = () => Promise.all([...document.querySelectorAll(".chart.fixed")].map(drawOne));
  drawing.draws(drawAll(), drawAll);
})();
