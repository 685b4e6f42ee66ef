"use strict";
// What is chosen on the map of heads, and which charts depend on it.
(() => {
  const { byId, data } = drawing;
  const { metrics, sink, charts, models, texts } = data[byId("map").dataset.key];
  const choice = {};
  for (const id of ["model", "layer", "head", "sequence", "scale"]) choice[id] = byId(id);

  const fill = (select, labels) => {
    const before = select.value;
    select.replaceChildren(...labels.map(([value, label]) => new Option(label, value)));
    if (labels.some(([value]) => String(value) === before)) select.value = before;
  };

  const model = () => models[choice.model.value];
  const layer = () => model().layers[choice.layer.value];
  const text = () => texts[model().text][choice.sequence.value];
  const metric = () => byId("metric").value;
  // What the charts show: a head, or the mean over all.
  const chosen = () => {
    const head = Number(choice.head.value);
    return { layer: layer(), metric: metric(), sequence: Number(choice.sequence.value), head, name: layer().heads[head] ?? null };
  };

  const refill = () => {
    fill(choice.layer, model().layers.map((item, index) => [index, item.name]));
    fill(choice.head, [[-1, "mean over all"], ...layer().heads.map((name, index) => [index, name])]);
    fill(choice.sequence, texts[model().text].map((item, index) => [index, `${index + 1} (${item.tokens.length} tokens)`]));
  };

  const drawCurves = () => positions.drawCurves(charts.positions, choice.scale.value);

  const drawPositions = () => {
    const { sequence, name, head } = chosen();
    const of = `${metrics[metric()]} of ${model().name}, ${layer().name}`;
    const sinks = layer().cells.led.some((led, index) => led && [-1, index].includes(head));
    const parts = [of, ...(name ? [name] : []), `sequence ${sequence + 1}`, ...(sinks ? ["with attention sinks"] : [])];
    byId("caption").textContent = parts.join(", ");
    positions.choose(model(), chosen(), text());
    choice.scale.parentElement.hidden = !positions.spread();
    if (!positions.spread()) choice.scale.value = "linear";
    return drawCurves();
  };

  // What is folded has no width to draw in.
  const folded = byId("chosen");
  const drawChosen = () => folded.open
    ? Promise.all([drawPositions(), tolerance.draw(charts.tolerance, chosen())]) : null;
  folded.addEventListener("toggle", drawChosen);

  let marked = null;
  const markCell = () => map.mark(Number(choice.model.value), ...(marked ?? [Number(choice.layer.value), chosen().name]));
  const pickCell = (cell) => {
    if (Number(choice.model.value) !== cell.model) positions.setRange(null);
    choice.model.value = cell.model;
    refill();
    choice.layer.value = cell.layer;
    refill();
    choice.head.value = layer().heads.indexOf(cell.label);
    marked = [cell.layer, cell.label];
    markCell();
    if (folded.open) drawChosen();
    else folded.open = true;
  };
  const drawMap = () => {
    map.drawMaps(models, metric(), byId("measure").value, sink, pickCell);
    markCell();
  };

  const drawAll = () => {
    drawMap();
    return drawChosen();
  };

  fill(choice.model, models.map((item, index) => [index, item.name]));
  fill(byId("metric"), Object.entries(metrics));
  fill(byId("measure"), map.measures(models, metric()));
  refill();
  for (const select of Object.values(choice)) {
    select.addEventListener("change", () => {
      if (select === choice.model || select === choice.sequence) positions.setRange(null);
      marked = null;
      refill();
      drawChosen();
      markCell();
    });
  }
  byId("metric").addEventListener("change", () => {
    fill(byId("measure"), map.measures(models, metric()));
    drawAll();
  });
  byId("measure").addEventListener("change", drawMap);
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
  drawing.draws(packing.open(models).then(drawAll), drawAll);
})();
