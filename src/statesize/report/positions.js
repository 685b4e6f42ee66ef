"use strict";
// ESS along the tokens of one sequence, of a layer or of one of its heads, with a range to zoom in on.
const positions = (() => {
  const { byId } = drawing;
  // The same room beside the chart and the strip below it, so that both begin and end alike.
  const ROOM = { minExtent: 38, maxExtent: 38 };
  let range = null;
  let cursor = -1;
  let pick = () => {};
  let shown = { rows: [], tokens: [], special: [] };

  const rowsOf = (layer, metric, sequence, head, { tokens, special }) => {
    const { positions: all, headStride, heads } = layer;
    const drawn = all.filter((_, place) => place % headStride === 0);
    const part = (packed, places, index) => packing.read(packed, index * places, places);
    const name = (position) => tokens[position] + (special.includes(position) ? " (special token)" : "");
    const around = (position) => `…${tokens.slice(Math.max(0, position - 5), position).join("")} ▏${tokens.slice(position, position + 4).join("")}…`.replaceAll("␣", " ");
    const curves = layer.ess[metric];
    const single = heads.map((name, index) => [name, part(curves.heads, drawn.length, sequence * heads.length + index)]);
    const ceiling = part(layer.ceiling, all.length, sequence);
    const norm = part(layer.norm, all.length, sequence);
    const step = head < 0 ? 1 : headStride;
    const values = head < 0 ? part(curves.mean, all.length, sequence) : single[head][1];
    const apart = layer.apart[metric];
    const gaps = apart && (head < 0 ? part(apart.mean, all.length, sequence) : part(apart.heads, drawn.length, sequence * heads.length + head));
    const rows = [];
    values.forEach((ess, index) => {
      const place = index * step;
      if (ess === null) return;
      const top = Math.round(ceiling[place]);
      const gap = gaps?.[index] ?? 0;
      const said = drawing.between(ess, gap, (value) => value.toFixed(2));
      rows.push({ position: all[place], token: name(all[place]), words: around(all[place]), ess, gap, said, ceiling: top, share: top ? ess / top : null,
        norm: head < 0 ? norm[place] : null });
    });
    const faint = single.flatMap(([name, curve]) => curve.flatMap((ess, index) =>
      ess === null ? [] : [{ position: drawn[index], head: name, ess }]));
    return { rows, faint };
  };

  // Where the pointer finds a position.
  const tiled = (rows) => rows.map((row, index) => ({ ...row,
    left: (row.position + (rows[index - 1]?.position ?? row.position)) / 2,
    right: (row.position + (rows[index + 1]?.position ?? row.position)) / 2 }));

  // Whether small values would be lost below the ceiling on a linear axis.
  const spread = () => {
    const top = Math.max(...shown.rows.map(({ ceiling }) => ceiling));
    return top > 10 * Math.max(...shown.rows.map(({ ess }) => ess));
  };

  const inside = (row) => range === null || (row.position >= range[0] && row.position <= range[1]);

  const showContext = (row, said) => {
    const { tokens } = shown;
    const { position } = row;
    const read = (start, end) => tokens.slice(Math.max(0, start), end).join("").replaceAll("␣", " ");
    const mark = document.createElement("mark");
    mark.textContent = tokens[position];
    const before = (position > 14 ? "… " : "") + read(position - 14, position);
    const after = `${read(position + 1, position + 9)} …`;
    const numbers = `Position ${position}: ESS ${drawing.between(row.ess, row.gap, (value) => Number(value.toPrecision(4)))} of at most ${row.ceiling}. `;
    byId("context").replaceChildren(...(said ? [numbers] : []), before, mark, after);
    cursor = position;
  };

  const readNext = (event) => {
    if (event.key === "Enter" && cursor >= 0) pick(cursor);
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    const rows = shown.rows.filter(inside);
    if (!(event.key in steps) || !rows.length) return;
    event.preventDefault();
    const at = rows.findIndex((row) => row.position === cursor);
    const next = at < 0 ? 0 : Math.min(Math.max(at + steps[event.key], 0), rows.length - 1);
    showContext(rows[next], true);
  };

  const drawCurves = async (spec, state, picked) => {
    const { rows, faint, special, tokens } = shown;
    const [near, other] = [rows.filter(inside), faint.filter(inside)];
    const borders = special.map((position) => ({ position, token: tokens[position] })).filter(inside);
    const bounds = near.filter(({ gap }) => gap).map(({ position, ess, gap }) => ({ position, low: ess - gap / 2, high: ess + gap / 2 }));
    const datasets = { positions: tiled(near), borders, heads: other, bounds };
    const chart = structuredClone(spec);
    chart.layer = chart.layer.filter((part) => datasets[part.data.name].length);
    for (const part of chart.layer) {
      // What stands out of the chart would make it narrower than the strip.
      part.mark.clip = true;
      if (drawing.narrow()) part.encoding.x.axis.tickCount = 5;
      const { scale } = part.encoding.color;
      if (state.headName && part.transform[0].calculate === `'${scale.domain[0]}'`) {
        part.transform[0].calculate = `'${state.headName}'`;
      }
      if (state.headName) part.encoding.tooltip = part.encoding.tooltip?.filter(({ field }) => field !== "norm");
      if (state.headName) scale.domain = [state.headName, ...scale.domain.slice(1)];
      if (part.encoding.y) part.encoding.y.scale = { type: state.scale };
      if (part.encoding.y) part.encoding.y.axis = ROOM;
    }
    byId("context").replaceChildren("Point at the chart to read the text around a position.");
    cursor = -1;
    if (!near.length) {
      drawing.clear("positions");
      byId("context").textContent = rows.length ? "Nothing was measured in this range." : "Nothing was measured in this sequence.";
      return;
    }
    const view = await drawing.draw("positions", chart, datasets);
    view?.addEventListener("pointermove", (_, item) => {
      if (item?.datum?.token !== undefined && item.datum.ceiling !== undefined) showContext(item.datum, false);
    });
    view?.addEventListener("click", (_, item) => {
      if (item?.datum?.position !== undefined) picked(item.datum.position);
    });
    pick = picked;
  };

  const setRange = (chosen) => {
    const rows = shown.rows;
    const whole = rows.length ? [rows[0].position, rows.at(-1).position] : [0, 0];
    range = chosen && chosen[0] < chosen[1] ? [Math.max(whole[0], chosen[0]), Math.min(whole[1], chosen[1])] : null;
    [byId("from").value, byId("to").value] = range ?? whole;
  };

  const drawBrush = async (spec, zoomed) => {
    if (!shown.rows.length) {
      drawing.clear("brush");
      return;
    }
    const view = await drawing.draw("brush", spec, { positions: shown.rows });
    // The fields From and To say the same to those who do not see it.
    for (const mark of byId("brush").querySelectorAll(".brush_brush_bg, .brush_brush")) mark.setAttribute("aria-hidden", "true");
    let waiting;
    view?.addSignalListener("brush", (_, value) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        setRange(value.position ? [Math.ceil(value.position[0]), Math.floor(value.position[1])] : null);
        zoomed();
      }, 150);
    });
  };

  const choose = (layer, metric, sequence, head, text) => {
    shown = { ...text, ...rowsOf(layer, metric, sequence, head, text) };
    setRange(range);
  };

  byId("positions").addEventListener("keydown", readNext);
  return { choose, drawBrush, drawCurves, setRange, spread };
})();
