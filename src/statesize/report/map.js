"use strict";
// The map of layers by heads of one model.
const map = (() => {
  const { byId } = drawing;
  const MOST_NUMBERS = 12;

  const cellRows = (model, measure) => {
    const rows = model.layers.flatMap(({ name, short, cells }, index) => cells.labels.map((label, column) => {
      const numbers = Object.fromEntries(Object.entries(cells.values).map(([key, values]) => [key, values[column]]));
      numbers.tss = cells.tss;
      for (const key of ["relative", "entropy", "tss"]) {
        if (numbers[key] !== undefined) numbers[`${key}_bytes`] = numbers[key] === null ? null : numbers[key] * cells.numberBytes;
      }
      return { layer: name, short, index, column, label, ...numbers, value: numbers[measure] ?? null };
    }));
    const top = measure.includes("utilisation") ? 1 : Math.max(...rows.map(({ value }) => value ?? 0)) || 1;
    for (const row of rows) row.bright = row.value > 0.6 * top;
    return { rows, top };
  };

  const drawMap = async (spec, model, measure, title, chosen) => {
    const { rows, top } = cellRows(model, measure);
    const columns = Math.max(...model.layers.map(({ cells }) => cells.labels.length), 1);
    const chart = structuredClone(spec);
    const [cells, text] = chart.layer;
    const format = measure.includes("utilisation") ? ".0%" : top > 100 ? ",.0f" : ".1f";
    cells.encoding.color.scale.domain = [0, top];
    cells.encoding.color.legend = { ...cells.encoding.color.legend, format };
    text.encoding.text.format = format;
    if (columns > (drawing.narrow() ? MOST_NUMBERS / 2 : MOST_NUMBERS)) chart.layer.pop();
    chart.height = model.layers.length * (model.layers.length > 24 ? 13 : 30);
    byId("map").style.maxWidth = `${columns * 84 + 120}px`;
    byId("map-caption").textContent = `${title}, ${model.name}`;
    const view = await drawing.draw("map", chart, { cells: rows });
    view?.addEventListener("click", (_, item) => {
      if (item?.datum?.label !== undefined) chosen(item.datum.index, item.datum.label);
    });
  };

  return { drawMap };
})();
