"use strict";
// What is chosen, and which charts depend on it.
(() => {
  const { byId, draw } = drawing;
  const data = JSON.parse(byId("data").textContent);
  const choice = {};
  for (const id of ["model", "layer", "head", "sequence", "scale"]) choice[id] = byId(id);

  const fill = (select, labels) => {
    const before = select.value;
    select.replaceChildren(...labels.map(([value, label]) => new Option(label, value)));
    if (labels.some(([value]) => String(value) === before)) select.value = before;
  };

  const model = () => data.models[choice.model.value];
  const layer = () => model().layers[choice.layer.value];
  const text = () => data.texts[model().text][choice.sequence.value];
  const head = () => Number(choice.head.value);
  const metric = () => byId("metric").value;
  // Models that read the same text as the one chosen.
  const readers = () => data.models.filter(({ text }) => text === model().text);

  const refill = () => {
    fill(choice.layer, model().layers.map((item, index) => [index, item.name]));
    fill(choice.head, [[-1, "mean over all"], ...layer().heads.map((name, index) => [index, name])]);
    const texts = data.texts[model().text].map((item, index) => [index, `${index + 1} (${item.tokens.length} tokens)`]);
    fill(choice.sequence, texts);
    byId("picture-model").value = choice.model.value;
    const longest = readers().reduce((best, item) => item.layers.length > best.layers.length ? item : best).layers;
    fill(byId("picture-layer"), [[-1, "that varies most"], ...longest.map(({ name }, index) => [index, name])]);
    fill(byId("picture-text"), texts);
  };

  const drawSpectrum = () => ladder.drawSpectrum(data.charts.spectrum, layer(), Number(choice.sequence.value), head(),
    Number(byId("at").value), text().tokens);

  const pick = (position) => {
    byId("at").value = position;
    drawSpectrum();
  };

  const drawCurves = () => {
    const headName = head() < 0 ? null : layer().heads[head()];
    const caption = `${data.metrics[metric()]} of ${model().name}, ${layer().name}`;
    const sequence = `sequence ${Number(choice.sequence.value) + 1}`;
    byId("caption").textContent = [caption, ...(headName ? [headName] : []), sequence].join(", ");
    const state = { headName, scale: choice.scale.value };
    return positions.drawCurves(data.charts.positions, state, pick);
  };

  const drawPositions = () => {
    positions.choose(layer(), metric(), Number(choice.sequence.value), head(), text());
    choice.scale.parentElement.hidden = !positions.spread();
    if (!positions.spread()) choice.scale.value = "linear";
    return Promise.all([drawCurves(), positions.drawBrush(data.charts.brush, drawCurves)]);
  };

  const drawTolerance = () => ladder.drawTolerance(data.charts.tolerance, layer(), head());
  const drawChosen = () => Promise.all([drawPositions(), drawTolerance(), drawSpectrum()]);

  const drawLayers = () => draw("layers", structuredClone(data.charts.layers[metric()]));
  const networks = Object.keys(data.charts).filter((name) => name.startsWith("network-"));
  const drawNetworks = () => Promise.all(networks.map((name) => draw(name, structuredClone(data.charts[name]))));

  const drawPicture = () => {
    const sequence = Number(byId("picture-text").value);
    const asked = { choice: Number(byId("picture-layer").value), metric: metric(), sequence };
    const left = data.models.filter(({ text }) => text !== model().text).map(({ name }) => name);
    const other = `Not in this chart, because the tokens are others: ${left.join(", ")}. Choose the model above.`;
    byId("picture-left").textContent = left.length ? other : "";
    return picture.draw(data.charts.picture, readers(), data.texts[model().text][sequence], asked, model());
  };

  let marked = null;
  const markCell = () => {
    const chosen = [Number(choice.layer.value), head() < 0 ? null : layer().heads[head()]];
    map.mark(Number(choice.model.value), ...(marked ?? chosen));
  };
  const pickCell = (cell) => {
    const other = Number(choice.model.value) !== cell.model;
    choice.model.value = cell.model;
    if (other) refill();
    choice.layer.value = cell.layer;
    refill();
    choice.head.value = Math.max(layer().heads.indexOf(cell.label), -1);
    byId("picture-layer").value = cell.layer;
    marked = [cell.layer, cell.label];
    markCell();
    byId("map-caption").textContent = `${model().name}, ${layer().name}, ${cell.label}: shown along the text below.`;
    if (other) positions.setRange(null);
    drawChosen();
    drawPicture();
  };
  const drawMap = () => {
    map.drawMaps(data.models, metric(), byId("measure").value, pickCell);
    markCell();
  };

  const drawAll = () => Promise.all([drawPicture(), drawLayers(), drawNetworks(), drawMap(), drawChosen()]);

  const models = data.models.map((item, index) => [index, item.name]);
  fill(choice.model, models);
  fill(byId("picture-model"), models);
  byId("picture-model").parentElement.hidden = models.length === 1;
  fill(byId("metric"), Object.entries(data.metrics));
  fill(byId("measure"), map.measures);
  refill();
  for (const id of ["picture-layer", "picture-text"]) byId(id).addEventListener("change", drawPicture);
  byId("metric").addEventListener("change", () => {
    for (const said of document.querySelectorAll("[data-metric]")) said.hidden = said.dataset.metric !== metric();
    drawAll();
  });
  byId("at").value = Math.floor(text().tokens.length / 2);
  for (const select of Object.values(choice)) {
    select.addEventListener("change", () => {
      if (select === choice.model || select === choice.sequence) positions.setRange(null);
      marked = null;
      refill();
      drawChosen();
      markCell();
      if (select === choice.model) drawPicture();
    });
  }
  byId("picture-model").addEventListener("change", () => {
    choice.model.value = byId("picture-model").value;
    choice.model.dispatchEvent(new Event("change"));
  });
  byId("measure").addEventListener("change", drawMap);
  byId("at").addEventListener("change", drawSpectrum);
  for (const id of ["from", "to"]) {
    byId(id).addEventListener("change", () => {
      positions.setRange([Number(byId("from").value), Number(byId("to").value)]);
      drawCurves();
    });
  }
  byId("whole").addEventListener("click", () => {
    positions.setRange(null);
    drawPositions();
  });
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) drawMap();
    width = window.innerWidth;
  });
  drawing.dark.addEventListener("change", drawAll);
  packing.open(data.models).then(drawAll).then(() => document.documentElement.setAttribute("data-ready", "true"));
})();
