"use strict";
// The maps of layers by heads, one per model on one scale, and the heads of each with most and with least ESS.
const map = (() => {
  const { byId } = drawing;
  // Viridis, and from which share on black is read better than white.
  const COLOURS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b",
    "#fde725"];
  const BRIGHT = 0.438;
  const MEASURES = {
    ess: "ESS, numbers per channel", sinkless: "ESS without sinks", share: "Share of the state or ceiling",
    tss: "Can hold (TSS), numbers per channel",
  };
  const WIDEST = 84;
  const EXTREMES = 5;
  const tip = byId("map-tip");
  let [maps, pick] = [[], null];

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const layerName = ({ name, short }) => short === name ? name : `layer ${short}`;

  const numbersOf = ({ cells }, metric, column) => ({
    share: cells.share[metric][column], ess: cells.ess[metric][column], tss: cells.tss, entropy: cells.ess.entropy[column],
    sinkless: cells.sinkless[column], apart: { ess: cells.apart[metric][column] },
  });

  const shown = (measure, value, digits = 1, apart = 0) => {
    if (value === null) return "not known";
    if (apart) return drawing.between(value, apart, (bound) => shown(measure, bound, digits));
    if (measure === "share") return `${Math.round(100 * value)}%`;
    return value >= 1000 || measure === "tss" ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
  };

  const parts = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  const mixed = (share) => {
    const place = Math.min(share, 1) * (COLOURS.length - 1);
    const first = Math.min(Math.floor(place), COLOURS.length - 2);
    const [lower, upper] = [parts(COLOURS[first]), parts(COLOURS[first + 1])];
    return lower.map((from, index) => Math.round(from + (place - first) * (upper[index] - from)));
  };

  const showScale = (low, high, measure, title, sink) => {
    const ends = low === high ? [shown(measure, high)] : [shown(measure, low), element("i", {}), shown(measure, high)];
    const scale = byId("map-scale");
    scale.replaceChildren(`${title}: `, ...ends);
    const bar = scale.querySelector("i");
    if (bar) bar.style.background = `linear-gradient(to right, ${COLOURS.join(", ")})`;
    if (sink) scale.append(element("span", {}, element("b", {}), sink));
  };

  const showTip = (cell) => {
    const box = byId("map").getBoundingClientRect();
    const { numbers, sink, name } = cell;
    const rows = Object.entries(MEASURES).filter(([key]) => key !== "sinkless" || numbers.sinkless !== numbers.entropy);
    const lines = rows.map(([key, title]) => `${title}: ${shown(key, numbers[key], 2, numbers.apart[key])}`);
    if (sink !== null) lines.push(`Most attention on one token: ${shown("share", sink)}`);
    tip.replaceChildren(element("strong", {}, name), ...lines.map((line) => element("span", {}, line)));
    tip.hidden = false;
    const at = cell.button.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(at.left - box.left, box.width - tip.offsetWidth))}px`;
    const below = at.bottom + tip.offsetHeight + 6 < window.innerHeight;
    tip.style.top = `${(below ? at.bottom + 6 : at.top - tip.offsetHeight - 6) - box.top}px`;
  };
  const hideTip = () => { tip.hidden = true; };

  // Labels of an axis: as many as have room.
  const axis = (labels, every, className, area) => labels.flatMap((label, index) => {
    if (index % every || label === "") return [];
    const made = element("span", { className: `axis ${className}` }, label);
    made.style.gridArea = area(index);
    return [made];
  });

  const makeCell = (model, measure, layer, column, share) => {
    const { label, value, numbers, sink, led } = { ...layer.values[column], label: layer.heads[column] };
    const said = shown(measure, value, 1, numbers.apart[measure]);
    const name = `${layerName(layer)}, ${label}: ${said}`;
    const number = element("span", {}, value === null ? "" : said);
    const button = element("button", { type: "button", tabIndex: -1 }, number);
    const most = led ? `, one token takes ${shown("share", sink)} of its attention` : "";
    button.setAttribute("aria-label", `${name}${most}`);
    button.setAttribute("aria-pressed", "false");
    if (value === null) button.classList.add("unknown");
    else {
      button.style.background = `rgb(${mixed(share(value))})`;
      button.style.color = share(value) > BRIGHT ? "#000" : "#fff";
    }
    if (led) button.append(element("b", {}));
    return { model, button, name, label, numbers, sink, column, layer: layer.index };
  };

  const makeMap = (model, index, { metric, measure, share, columnsAreLayers, most, width }) => {
    const layers = model.layers.map((layer, place) =>
      ({ ...layer, index: place, values: valuesOf(layer, metric, measure) }));
    const cells = layers.flatMap((layer) => layer.heads.map((_, column) =>
      makeCell(index, measure, layer, column, share)));
    const units = [...new Set(layers.map(({ cells: { unit } }) => unit))].join(" or ");
    // The number of a head where it is that of all layers: of many channels other ones are measured in each.
    const longestLayer = layers.reduce((best, layer) => layer.values.length > best.values.length ? layer : best);
    const numbers = longestLayer.heads.map((label, place) => {
      const same = layers.every(({ heads }) => [label, undefined].includes(heads[place]));
      return same ? /^\w+ (\d+)$/.exec(label)?.[1] ?? "" : "";
    });
    const numbered = numbers.every((number) => number !== "");
    const heads = numbered ? numbers : numbers.map(() => "");
    const names = layers.map(({ short }) => short);
    const [across, down] = columnsAreLayers ? [names, heads] : [heads, names];
    const grid = element("div", { className: "cells" });
    const side = `${Math.min(8, Math.max(2, ...down.map(({ length }) => length)) * 0.62)}rem`;
    const room = Math.min(WIDEST, (width - 16 * parseFloat(side)) / most);
    grid.style.gridTemplateColumns = `${side} repeat(${across.length}, minmax(0, ${WIDEST}px))`;
    grid.style.maxWidth = `calc(${side} + ${(width - 16 * parseFloat(side)) * across.length / most}px)`;
    const tall = down.length > 32 ? 13 : down.length > 12 ? 19 : 23;
    grid.style.gridAutoRows = `${tall}px`;
    const every = Math.ceil((Math.max(...across.map(({ length }) => length)) * 7 + 4) / room);
    const wide = (place) => Math.min(every, across.length - place);
    const above = every > 1 ? "starts" : "";
    grid.append(...axis(across, every, above, (place) => `1 / ${place + 2} / 2 / span ${wide(place)}`),
      ...axis(down, tall > 13 ? 1 : 4, "beside", (place) => `${place + 2} / 1`));
    for (const cell of cells) {
      const [row, column] = columnsAreLayers ? [cell.column, cell.layer] : [cell.layer, cell.column];
      Object.assign(cell, { row, across: column });
      cell.button.style.gridArea = `${row + 2} / ${column + 2}`;
      cell.button.addEventListener("click", () => pick(cell));
      cell.button.addEventListener("pointerenter", () => showTip(cell));
      cell.button.addEventListener("focus", () => showTip(cell));
      for (const left of ["pointerleave", "blur"]) cell.button.addEventListener(left, hideTip);
      cell.button.addEventListener("keydown", (event) => move(event, cell, cells));
    }
    grid.append(...cells.map(({ button }) => button));
    if (cells.length) cells[0].button.tabIndex = 0;
    grid.setAttribute("role", "group");
    grid.setAttribute("aria-label", `Layers by ${units}s of ${model.name}; the arrow keys move from one to the next`);
    const longest = Math.max(0, ...cells.map(({ button }) => button.textContent.length));
    if (tall < 16 || room < 6.6 * longest + 6) grid.classList.add("bare");
    const others = !numbered ? `those ${units}s of each layer that were measured, in order` : `${units}s`;
    const sides = columnsAreLayers ? `Across: layers. Down: ${others}.` : `Across: ${others}. Down: layers.`;
    const [heading, caption] = [element("h3", {}, model.name), element("p", { className: "hint" }, sides)];
    return { cells, figure: element("figure", {}, heading, grid, caption, extremes(model, units, cells)) };
  };

  const valuesOf = (layer, metric, measure) => layer.heads.map((_, column) => {
    const numbers = numbersOf(layer, metric, column);
    return { numbers, value: numbers[measure], sink: layer.cells.sink[column], led: layer.cells.led[column] };
  });

  const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const move = (event, from, cells) => {
    const step = STEPS[event.key];
    if (event.key === "Escape") hideTip();
    if (!step) return;
    event.preventDefault();
    const next = cells.find(({ row, across }) => row === from.row + step[0] && across === from.across + step[1]);
    if (!next) return;
    from.button.tabIndex = -1;
    next.button.tabIndex = 0;
    next.button.focus();
  };

  // The cells with most and with least ESS, by name, none twice.
  const extremes = (model, units, cells) => {
    const list = (title, ranked) => {
      const items = ranked.map((cell) => {
        const name = `${layerName(model.layers[cell.layer])}, ${cell.label}`;
        const button = element("button", { type: "button", className: "named" }, name);
        button.addEventListener("click", () => pick(cell));
        return element("li", {}, button, `: ${shown("ess", cell.numbers.ess, 1, cell.numbers.apart.ess)}`);
      });
      return element("div", {}, element("h4", {}, title), element("ol", {}, ...items));
    };
    const known = cells.filter(({ numbers }) => numbers.ess !== null).sort((a, b) => a.numbers.ess - b.numbers.ess);
    const count = Math.min(EXTREMES, Math.floor(known.length / 2));
    const [least, most] = [known.slice(0, count), known.reverse().slice(0, count)];
    const lists = [list(`The ${units}s with most ESS`, most), list(`The ${units}s with least ESS`, least)];
    return element("div", { className: "extremes" }, ...(most.length ? lists : []));
  };

  // The cell that the curves below belong to.
  const mark = (model, layer, label) => {
    for (const cell of maps.flatMap(({ cells }) => cells)) {
      const chosen = cell.model === model && cell.layer === layer && cell.label === label;
      cell.button.setAttribute("aria-pressed", String(chosen));
    }
  };

  const drawMaps = (models, metric, measure, sink, chosen) => {
    pick = chosen;
    const values = models.flatMap(({ layers }) => layers).flatMap((layer) => valuesOf(layer, metric, measure));
    const known = values.map(({ value }) => value).filter((value) => value !== null);
    const [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 0];
    const share = (value) => high > low ? (value - low) / (high - low) : 0.5;
    const most = [Math.max(...models.map(({ layers }) => layers.length)),
      Math.max(...models.flatMap(({ layers }) => layers.map(({ heads }) => heads.length)))];
    // The longer side goes across a screen and down a phone.
    const columnsAreLayers = (most[0] > most[1]) !== drawing.narrow();
    // Small maps of several models stand in pairs.
    const pairs = models.length > 1 && 2 * (most[columnsAreLayers ? 0 : 1] * 36 + 80) < byId("map").clientWidth;
    byId("map").classList.toggle("pairs", pairs);
    const width = pairs ? byId("map").clientWidth / 2 - 16 : byId("map").clientWidth;
    const choice = { metric, measure, share, columnsAreLayers, most: most[columnsAreLayers ? 0 : 1], width };
    hideTip();
    maps = models.map((model, index) => makeMap(model, index, choice));
    byId("map").replaceChildren(...maps.map(({ figure }) => figure), tip);
    byId("map").classList.toggle("alone", models.length === 1);
    showScale(low, high, measure, MEASURES[measure], values.some(({ led }) => led) && sink);
  };

  // Counts have no number without sinks, and where there are none it says no more than ESS does.
  const measures = (models, metric) => {
    const shows = metric === "entropy" && models.some(({ layers }) => layers.some(({ cells: { led } }) => led.includes(true)));
    return Object.entries(MEASURES).filter(([measure]) => shows || measure !== "sinkless");
  };

  return { drawMaps, mark, measures };
})();
