"use strict";
// The first chart of a page: the ESS of a layer of each model along one text, below what each could keep, and the text.
const picture = (() => {
  const { byId } = drawing;
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  let [curves, view, at, pointer] = [[], null, -1, null];

  // One curve a model that reads this text, of the layer chosen, or of the one that changes most.
  const curveOf = (model, choice, metric, sequence) => {
    const layer = model.layers[choice < 0 ? model.telling[metric] : choice];
    const count = layer.positions.length;
    const read = (packed) => packing.read(packed, sequence * count, count);
    const gaps = layer.apart[metric] ? read(layer.apart[metric].mean) : [];
    return { of: model, model: model.name, layer, ess: read(layer.ess[metric].mean), gaps, ceiling: read(layer.ceiling) };
  };

  const rowsOf = ({ model, layer, ess, gaps, ceiling }) => layer.positions.flatMap((position, place) =>
    ess[place] === null ? [] : [{ position, model, ess: ess[place], gap: gaps[place] ?? 0, ceiling: Math.round(ceiling[place]) }]);

  // Models of equal ceilings share an area.
  const areasOf = (found) => {
    const areas = new Map();
    for (const rows of found) {
      const key = rows.map(({ ceiling }) => ceiling).join();
      areas.set(key, { rows, names: [...(areas.get(key)?.names ?? []), rows[0].model] });
    }
    return [...areas.values()].map(({ rows, names }) => {
      const others = names.length > 1 && names.length === found.length - 1;
      const of = `what ${found.length === 1 ? "it" : others ? "the others" : names.join(", ")} could carry`;
      return rows.map(({ position, ceiling }) => ({ position, ceiling, of }));
    });
  };

  const showLegend = () => {
    byId("picture-legend").replaceChildren(...curves.map(({ model, layer }, index) => {
      const [item, line] = [document.createElement("span"), document.createElement("i")];
      line.style.background = COLOURS[index % COLOURS.length];
      item.append(line, layer.short === layer.name ? `${model}, ${layer.name}` : `${model}, layer ${layer.short}`);
      return item;
    }));
  };

  const showText = ({ tokens, special }) => {
    const plain = (token) => token.replaceAll("␣", " ").replaceAll("⏎", "\n").replaceAll("⇥", "\t");
    // Without a tokenizer tokens are numbers, which would run into each other.
    const space = tokens.every((token) => /^\d+$/.test(token)) ? " " : "";
    byId("text").replaceChildren(...tokens.map((token, position) => {
      const part = document.createElement("span");
      part.textContent = plain(token) + space;
      part.dataset.position = position;
      if (special.includes(position)) part.className = "special";
      return part;
    }));
  };

  // Tokens are shaded by what one layer of one model carries past the cut before each, from its least to its most.
  const shade = ({ name }, { layer, ess }) => {
    const known = ess.filter((value, place) => value !== null && layer.positions[place] >= 1);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const strength = (value) => `${Math.max(0, Math.round(high > low ? 50 * (value - low) / (high - low) : 25))}%`;
    const colour = (share) => `color-mix(in srgb, var(--accent) ${share}, transparent)`;
    // Where not every position was measured, a token has the shade of the last one before it that was.
    const values = new Map(layer.positions.map((position, place) => [position, ess[place]]));
    let [value, gaps] = [null, false];
    for (const token of byId("text").children) {
      const position = Number(token.dataset.position);
      if (values.has(position)) value = values.get(position);
      else gaps = true;
      if (value !== null) token.style.background = colour(strength(value));
    }
    const bar = document.createElement("i");
    bar.style.background = `linear-gradient(to right, transparent, ${colour("50%")})`;
    const said = layer.short === layer.name ? layer.name : `layer ${layer.short}`;
    const ends = [low.toFixed(1), bar, high.toFixed(1)];
    byId("text-scale").replaceChildren(`${name}, ${said}: `, ...ends, " numbers per channel",
      gaps ? "; tokens that were not measured have the shade of the last one before" : "");
  };

  // A line in the chart, the token in the text, and the numbers below, all of one position.
  const point = (position) => {
    const { positions } = curves[0].layer;
    at = positions.reduce((best, one, place) => Math.abs(one - position) < Math.abs(positions[best] - position) ? place : best, 0);
    const chosen = positions[at];
    const line = byId("picture-line");
    line.style.left = `${view.origin()[0] + view.scale("x")(chosen)}px`;
    line.hidden = false;
    byId("text").querySelector("mark")?.replaceWith(...byId("text").querySelector("mark").childNodes);
    const token = byId("text").querySelector(`[data-position="${chosen}"]`);
    if (token) {
      const mark = document.createElement("mark");
      token.replaceWith(mark);
      mark.append(token);
      const box = byId("text");
      const place = mark.offsetTop - box.offsetTop;
      if (place < box.scrollTop || place > box.scrollTop + box.clientHeight - 24) box.scrollTop = place - box.clientHeight / 2;
    }
    const numbers = curves.map(({ model, layer, ess, gaps, ceiling }) => {
      const place = layer.positions.indexOf(chosen);
      return place < 0 || ess[place] === null ? `${model} was not measured` : `${model} carries ${drawing.between(ess[place], gaps[place] ?? 0, (value) => value.toFixed(1))} of at most ${Math.round(ceiling[place])}`;
    });
    byId("picture-said").textContent = `Before “${token?.textContent.trim() ?? "the end"}” (token ${chosen}): ${numbers.join("; ")}.`;
  };

  // Browsers tell of a pointer that rests where the page moves below it; the keys chose another position then.
  const rests = ({ clientX, clientY }) => {
    const last = pointer;
    pointer = `${clientX} ${clientY}`;
    return pointer === last;
  };

  const follow = (event) => {
    if (!view || rests(event)) return;
    const left = byId("picture").getBoundingClientRect().left + view.origin()[0];
    point(view.scale("x").invert(event.clientX - left));
  };

  const step = (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (!(event.key in steps) || !view) return;
    event.preventDefault();
    const { positions } = curves[0].layer;
    point(positions[Math.min(Math.max(at + steps[event.key], 0), positions.length - 1)]);
  };

  const draw = async (spec, models, text, { choice, metric, sequence }, chosen) => {
    const found = models.filter(({ layers }) => layers.length > Math.max(choice, 0)).map((model) => curveOf(model, choice, metric, sequence));
    const rows = found.map(rowsOf);
    curves = found.filter((_, index) => rows[index].length);
    byId("picture-line").hidden = true;
    view = null;
    showText(text);
    showLegend();
    const shading = curves.find(({ of }) => of === chosen);
    byId("text-scale").replaceChildren();
    if (shading) shade(chosen, shading);
    if (!curves.length) {
      drawing.clear("picture");
      byId("picture-said").textContent = "Nothing was measured in this text.";
      return;
    }
    const areas = areasOf(rows.filter((one) => one.length));
    const labels = areas.map((area) => area.reduce((best, row) => row.ceiling > best.ceiling ? row : best));
    const middle = (area, top) => {
      const highest = area.filter(({ ceiling }) => ceiling === top.ceiling);
      return highest[Math.floor(highest.length * 0.15)];
    };
    const chart = structuredClone(spec);
    for (const part of chart.layer.slice(2)) part.encoding.color.scale = { domain: curves.map(({ model }) => model), range: COLOURS };
    const drawn = rows.flat();
    const bounds = drawn.filter(({ gap }) => gap).map((row) => ({ ...row, low: row.ess - row.gap / 2, high: row.ess + row.gap / 2 }));
    if (!bounds.length) chart.layer.pop();
    if (drawing.narrow()) chart.layer.splice(1, 1);
    const datasets = { ceilings: areas.flat(), labels: areas.map((area, index) => middle(area, labels[index])), curves: drawn, bounds };
    byId("picture-said").textContent = "Point at the chart or at the text to read the numbers at a token.";
    at = -1;
    view = await drawing.draw("picture-chart", chart, datasets);
  };

  byId("picture").addEventListener("pointermove", follow);
  byId("picture").addEventListener("keydown", step);
  byId("text").addEventListener("pointermove", (event) => {
    const { position } = event.target.dataset;
    if (position !== undefined && view && !rests(event)) point(Number(position));
  });
  return { draw };
})();
