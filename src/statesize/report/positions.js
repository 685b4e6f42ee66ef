"use strict";
// ESS along the tokens of one sequence, of a layer or of one of its heads, with the text that it shades.
const positions = (() => {
  const { byId } = drawing;
  let [range, cursor, pointer, view] = [null, null, null, null];
  let shown = { rows: [], faint: [], tokens: [], special: [], name: null };

  const rowsOf = ({ layer, metric, sequence, head }, { tokens, special }) => {
    const { positions: all, heads } = layer;
    const slice = (packed, places, index) => packing.read(packed, index * places, places);
    // Curves of the mean, or of the head chosen.
    const curve = ({ mean, heads: single }) => head < 0 ? slice(mean, all.length, sequence) : slice(single, all.length, sequence * heads.length + head);
    const token = (position) => tokens[position] + (special.includes(position) ? " (special token)" : "");
    const ceiling = slice(layer.ceiling, all.length, sequence);
    const norm = slice(layer.norm, all.length, sequence);
    const gaps = layer.apart[metric] ? curve(layer.apart[metric]) : [];
    const rows = curve(layer.ess[metric]).flatMap((ess, place) => {
      const gap = gaps[place] ?? 0;
      const top = Math.round(ceiling[place]);
      const said = drawing.between(ess, gap, (value) => value.toFixed(2));
      return ess === null ? [] : [{ position: all[place], token: token(all[place]), ess, gap, said, ceiling: top, share: top ? ess / top : null, norm: norm[place] }];
    });
    // Where the pointer finds a position.
    const middle = (row, next) => (row.position + (next ?? row).position) / 2;
    const tiled = rows.map((row, index) => ({ ...row, left: middle(row, rows[index - 1]), right: middle(row, rows[index + 1]) }));
    const faint = heads.length === 1 ? [] : heads.flatMap((name, index) => slice(layer.ess[metric].heads, all.length, sequence * heads.length + index)
      .flatMap((ess, place) => ess === null ? [] : [{ position: all[place], head: name, ess }]));
    return { rows: tiled, faint };
  };

  // Whether small values would be lost below the ceiling on a linear axis.
  const spread = () => Math.max(...shown.rows.map(({ ceiling }) => ceiling)) > 10 * Math.max(...shown.rows.map(({ ess }) => ess));

  const inside = ({ position }) => range === null || (position >= range[0] && position <= range[1]);

  const showText = ({ tokens, special }) => {
    const plain = (token) => token.replaceAll("␣", " ").replaceAll("⏎", "\n").replaceAll("⇥", "\t");
    // Without a tokenizer tokens are numbers, which would run into each other.
    const space = tokens.every((token) => /^\d+$/.test(token)) ? " " : "";
    byId("text").replaceChildren(...tokens.map((token, position) => {
      const span = document.createElement("span");
      span.textContent = plain(token) + space;
      span.dataset.position = position;
      if (special.includes(position)) span.className = "special";
      return span;
    }));
  };

  // Tokens are shaded by what passes the cut before each, from the least to the most.
  const shade = (model, { layer, name }) => {
    byId("text-scale").replaceChildren();
    const known = shown.rows.filter(({ position }) => position >= 1).map(({ ess }) => ess);
    if (!known.length) return;
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const strength = (value) => `${Math.max(0, Math.round(high > low ? 50 * (value - low) / (high - low) : 25))}%`;
    const colour = (share) => `color-mix(in srgb, var(--accent) ${share}, transparent)`;
    // Where not every cut was measured, a token has the shade of the nearest one that was.
    const { rows } = shown;
    let place = 0;
    [...byId("text").children].forEach((token, position) => {
      while (place < rows.length - 1 && position >= rows[place].right) place += 1;
      token.style.background = colour(strength(rows[place].ess));
    });
    const bar = document.createElement("i");
    bar.style.background = `linear-gradient(to right, transparent, ${colour("50%")})`;
    const of = [model.name, layer.short === layer.name ? layer.name : `layer ${layer.short}`, ...(name ? [name] : [])].join(", ");
    byId("text-scale").replaceChildren(`${of}: `, low.toFixed(1), bar, high.toFixed(1), " numbers per channel",
      rows.length < shown.tokens.length ? `; each token has the shade of the nearest cut. ${model.cuts}` : "");
  };

  // The room left of the chart's axes.
  const beside = () => view.origin()[0] + view.padding().left;

  // A line in the chart, the token in the text, and the numbers below, all of one position.
  const point = (row) => {
    cursor = row;
    byId("line").style.left = `${beside() + view.scale("x")(row.position)}px`;
    byId("line").hidden = false;
    const box = byId("text");
    const before = box.querySelector("mark");
    before?.replaceWith(...before.childNodes);
    const token = box.querySelector(`[data-position="${row.position}"]`);
    if (token) {
      const mark = document.createElement("mark");
      token.replaceWith(mark);
      mark.append(token);
      const place = mark.offsetTop - box.offsetTop;
      if (place < box.scrollTop || place > box.scrollTop + box.clientHeight - 24) box.scrollTop = place - box.clientHeight / 2;
    }
    const numbers = drawing.between(row.ess, row.gap, (value) => Number(value.toPrecision(4)));
    byId("said").textContent = `Position ${row.position}: ESS ${numbers} of at most ${row.ceiling}, before “${token?.textContent.trim() ?? "the end"}”.`;
  };

  const nearest = (position) => shown.rows.filter(inside).reduce((best, row) =>
    Math.abs(row.position - position) < Math.abs(best.position - position) ? row : best);

  // Browsers tell of a pointer that rests where the page moves below it; the keys chose another position then.
  const rests = ({ clientX, clientY }) => {
    const last = pointer;
    pointer = `${clientX} ${clientY}`;
    return pointer === last;
  };

  const underPointer = ({ clientX }) => nearest(view.scale("x").invert(clientX - byId("positions").getBoundingClientRect().left - beside()));

  const step = (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !view) return;
    event.preventDefault();
    const rows = shown.rows.filter(inside);
    const next = cursor ? rows.indexOf(cursor) + steps[event.key] : 0;
    point(rows[Math.min(Math.max(next, 0), rows.length - 1)]);
  };

  const drawCurves = async (spec, scale) => {
    const { rows, faint, special, tokens, name } = shown;
    const near = rows.filter(inside);
    const borders = special.map((position) => ({ position, token: tokens[position] })).filter(inside);
    const bounds = near.filter(({ gap }) => gap).map(({ position, ess, gap }) => ({ position, low: ess - gap / 2, high: ess + gap / 2 }));
    const cuts = rows.length < tokens.length ? near : [];
    const chart = drawing.filled(spec, { positions: near, cuts, borders, heads: faint.filter(inside), bounds }, name);
    for (const marks of chart.layer) {
      if (drawing.narrow()) marks.encoding.x.axis.tickCount = 5;
      if (name) marks.encoding.tooltip = marks.encoding.tooltip?.filter(({ field }) => field !== "norm");
      if (marks.encoding.y) marks.encoding.y.scale = { type: scale };
    }
    [view, cursor] = [null, null];
    byId("line").hidden = true;
    byId("said").textContent = "Point at the chart or at the text to read the numbers at a token.";
    if (near.length) view = await drawing.draw("positions", chart);
    else {
      drawing.clear("positions");
      byId("said").textContent = `Nothing was measured in this ${rows.length ? "range" : "sequence"}.`;
    }
  };

  const setRange = (chosen) => {
    const { rows } = shown;
    const whole = rows.length ? [rows[0].position, rows.at(-1).position] : [0, 0];
    range = chosen && chosen[0] < chosen[1] ? [Math.max(whole[0], chosen[0]), Math.min(whole[1], chosen[1])] : null;
    [byId("from").value, byId("to").value] = range ?? whole;
  };

  const choose = (model, chosen, text) => {
    shown = { ...text, ...rowsOf(chosen, text), name: chosen.name };
    setRange(range);
    showText(text);
    shade(model, chosen);
  };

  byId("along").addEventListener("keydown", step);
  byId("along").addEventListener("pointermove", (event) => { if (view && !rests(event)) point(underPointer(event)); });
  byId("text").addEventListener("pointermove", (event) => {
    const { position } = event.target.dataset;
    if (position !== undefined && view && !rests(event)) point(nearest(Number(position)));
  });
  return { choose, drawCurves, setRange, spread };
})();
