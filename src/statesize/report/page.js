"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const choice = { model: byId("model"), layer: byId("layer"), sequence: byId("sequence"), metric: byId("metric"), scale: byId("scale") };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = {};

  const config = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    const [ink, soft, line] = [read("--ink"), read("--soft"), read("--line")];
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      axis: { labelColor: soft, titleColor: soft, titleFontWeight: 500, titleFontSize: 12, labelFontSize: 11, titlePadding: 8,
        gridColor: line, domainColor: line, tickColor: line },
      axisX: { grid: false },
      legend: { columns: window.innerWidth < 520 ? 2 : 4, labelColor: ink, titleColor: soft, labelFontSize: 12, symbolSize: 110 },
    };
  };

  const draw = async (id, spec, datasets) => {
    const turn = (views[id]?.turn ?? 0) + 1;
    views[id]?.result?.finalize();
    views[id] = { turn };
    const result = await vegaEmbed(byId(id), { ...spec, datasets: { ...spec.datasets, ...datasets } }, {
      ast: true, actions: false, renderer: "svg", config: config(), tooltip: { theme: dark.matches ? "dark" : "light" },
    });
    if (views[id].turn !== turn) result.finalize();
    else views[id].result = result;
    return result.view;
  };

  const fill = (select, labels) => {
    const before = select.value;
    select.replaceChildren(...labels.map(([value, label]) => new Option(label, value)));
    if (labels.some(([value]) => String(value) === before)) select.value = before;
  };

  const model = () => data.models[choice.model.value];
  const layer = () => model().layers[choice.layer.value];

  const refill = () => {
    fill(choice.layer, model().layers.map((item, index) => [index, item.name]));
    fill(choice.sequence, data.texts[model().text].map((item, index) => [index, `${index + 1} (${item.tokens.length} tokens)`]));
    fill(choice.metric, Object.keys(layer().ess).map((key) => [key, data.metrics[key]]));
  };

  const headRows = (curves, sequence) => {
    if (!curves.heads) return [];
    const bytes = Uint8Array.from(atob(curves.heads), (sign) => sign.charCodeAt(0));
    const { positions, units, unit } = layer();
    const start = sequence * units * positions.length;
    const rows = [];
    for (let head = 0; head < units; head += 1) {
      for (let place = 0; place < positions.length; place += 1) {
        const value = bytes[start + head * positions.length + place];
        if (value < 255) rows.push({ position: positions[place], head: `${unit} ${head}`, ess: value / 254 * curves.top });
      }
    }
    return rows;
  };

  const showContext = (tokens, position) => {
    const read = (start, end) => tokens.slice(Math.max(0, start), end).join("").replaceAll("␣", " ");
    const mark = document.createElement("mark");
    mark.textContent = tokens[position];
    const start = position > 14 ? "… " : "";
    byId("context").replaceChildren(start + read(position - 14, position), mark, `${read(position + 1, position + 9)} …`);
  };

  const drawPositions = () => {
    const { positions, ceiling, norm, ess } = layer();
    const sequence = Number(choice.sequence.value);
    const { tokens, special } = data.texts[model().text][sequence];
    const curves = ess[choice.metric.value];
    const rows = [];
    const places = positions.map((_, place) => place).filter((place) => curves.mean[sequence][place] !== null);
    places.forEach((place, index) => {
      const [position, value, top] = [positions[place], curves.mean[sequence][place], ceiling[sequence][place]];
      const left = (position + (positions[places[index - 1]] ?? position)) / 2;
      const right = (position + (positions[places[index + 1]] ?? position)) / 2;
      rows.push({ position, left, right, token: tokens[position], ess: value, ceiling: top, utilisation: top ? value / top : null,
        norm: norm[sequence][place] });
    });
    const borders = special.map((position) => ({ position, token: tokens[position] }));
    const datasets = { positions: rows, borders, heads: headRows(curves, sequence) };
    const spec = structuredClone(data.charts.positions);
    spec.layer = spec.layer.filter((part) => datasets[part.data.name].length);
    for (const part of spec.layer) {
      if (window.innerWidth < 520) part.encoding.x.axis.tickCount = 5;
      part.encoding.color.scale.range = data.colours[dark.matches ? "dark" : "light"];
      if (part.encoding.y) part.encoding.y.scale = { type: choice.scale.value };
    }
    const caption = `${data.metrics[choice.metric.value]} of ${model().name}, ${layer().name}, sequence ${sequence + 1}`;
    byId("caption").textContent = caption;
    byId("context").replaceChildren("Point at the chart to read the text around a position.");
    if (!rows.length) {
      views.positions?.result?.finalize();
      byId("positions").replaceChildren();
      byId("context").textContent = "Nothing was measured in this sequence.";
      return Promise.resolve();
    }
    return draw("positions", spec, datasets)
      .then((view) => view?.addEventListener("pointermove", (_, item) => {
        if (item?.datum?.position !== undefined) showContext(tokens, item.datum.position);
      }));
  };

  const drawAll = () => Promise.all([draw("layers", data.charts.layers, {}), drawPositions()]);

  fill(choice.model, data.models.map((item, index) => [index, item.name]));
  refill();
  for (const select of Object.values(choice)) {
    select.addEventListener("change", () => { refill(); drawPositions(); });
  }
  dark.addEventListener("change", drawAll);
  drawAll().then(() => document.documentElement.setAttribute("data-ready", "true"));
})();
