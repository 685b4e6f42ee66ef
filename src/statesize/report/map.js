"use strict";
// The map of layers by heads of one model.
const map = (() => {
  const { byId } = drawing;
  const MOST_NUMBERS = 12;

  const cellRows = (model, metric, measure, layer, head) => {
    const rows = model.layers.flatMap(({ name, short, cells }, index) => cells.labels.map((label, column) => {
      const numbers = { share: cells.share[metric][column], ess: cells.ess[metric][column], tss: cells.tss };
      for (const key of ["ess", "tss"]) numbers[`${key}_bytes`] = numbers[key] === null ? null : numbers[key] * cells.numberBytes;
      const chosen = index === layer && label === head;
      return { layer: name, short, index, column, label, chosen, ...numbers, value: numbers[measure] };
    }));
    // The chosen one last, so that its border lies over those beside it.
    rows.sort((one, other) => one.chosen - other.chosen);
    const top = measure === "share" ? 1 : Math.max(...rows.map(({ value }) => value ?? 0)) || 1;
    for (const row of rows) row.bright = row.value > 0.6 * top;
    return { rows, top };
  };

  // What the map can show, with titles: the numbers of its tooltips.
  const measures = (spec) => spec.layer[0].encoding.tooltip.filter(({ type }) => type === "quantitative").map(({ field, title }) => [field, title]);

  const drawMap = async (spec, model, metric, [measure, title], [layer, head], pick) => {
    const { rows, top } = cellRows(model, metric, measure, layer, head);
    const columns = Math.max(...model.layers.map(({ cells }) => cells.labels.length), 1);
    const chart = structuredClone(spec);
    const [cells, text] = chart.layer;
    const format = measure === "share" ? ".0%" : top > 100 ? ",.0f" : ".1f";
    cells.encoding.color.scale.domain = [0, top];
    chart.encoding.y.sort = model.layers.map(({ short }) => short);
    cells.encoding.color.legend = { ...cells.encoding.color.legend, format };
    text.encoding.text.format = format;
    if (columns > (drawing.narrow() ? MOST_NUMBERS / 2 : MOST_NUMBERS)) chart.layer.pop();
    chart.height = model.layers.length * (model.layers.length > 24 ? 13 : 30);
    byId("map").style.maxWidth = `${columns * 84 + 120}px`;
    byId("map-caption").textContent = `${title}, ${model.name}`;
    const view = await drawing.draw("map", chart, { cells: rows });
    view?.addEventListener("click", (_, item) => {
      if (item?.datum?.label !== undefined) pick(item.datum.index, item.datum.label);
    });
  };

  return { drawMap, measures };
})();
