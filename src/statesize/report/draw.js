"use strict";
// Drawing of Vega-Lite charts in the page's colours, without evaluated code.
const drawing = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = {};
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const narrow = () => window.innerWidth < 520;

  // Colours are the style sheet's variables, so that charts follow it into the dark and onto paper.
  const config = () => ({
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    title: { color: "var(--ink)" },
    axis: { labelColor: "var(--soft)", titleColor: "var(--soft)", titleFontWeight: 500, titleFontSize: 12, labelFontSize: 11,
      titlePadding: 8, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)" },
    axisX: { grid: false },
    legend: { columns: narrow() ? 2 : 4, labelColor: "var(--ink)", titleColor: "var(--soft)", labelFontSize: 12, labelLimit: 300, symbolSize: 110,
      symbolBaseFillColor: "var(--soft)", symbolBaseStrokeColor: "var(--soft)" },
  });

  const clear = (id) => {
    views[id]?.result?.finalize();
    views[id] = { turn: (views[id]?.turn ?? 0) + 1 };
    byId(id).replaceChildren();
  };

  // A chart with the rows of its tables, without the layers that have none; `name` is whose curve is strong, if not the mean's.
  const filled = (spec, datasets, name) => {
    const layer = structuredClone(spec.layer).filter((marks) => datasets[marks.data.name].length);
    const roles = new Set(layer.map(({ transform: [step] }) => step.calculate.slice(1, -1)));
    const named = (role) => role === "mean" && name ? name : role;
    for (const { transform: [step], encoding: { color } } of layer) {
      step.calculate = `'${named(step.calculate.slice(1, -1))}'`;
      color.scale.range = color.scale.range.filter((_, index) => roles.has(color.scale.domain[index]));
      color.scale.domain = color.scale.domain.filter((role) => roles.has(role)).map(named);
      if (roles.size === 1) color.legend = null;
    }
    return { ...spec, layer, datasets };
  };

  const draw = async (id, spec) => {
    const turn = (views[id]?.turn ?? 0) + 1;
    views[id]?.result?.finalize();
    views[id] = { turn };
    const result = await vegaEmbed(byId(id), spec, {
      ast: true, actions: false, renderer: "svg", config: config(), tooltip: { theme: dark.matches ? "dark" : "light", anchor: "mark", position: ["top", "bottom", "right", "left"], offsetX: 0, offsetY: 6 },
    });
    if (views[id].turn !== turn) {
      result.finalize();
      return null;
    }
    views[id].result = result;
    return result.view;
  };

  // The page is ready when all first draws are; in another colour scheme all is drawn again.
  const waiting = [];
  const draws = (first, again) => {
    waiting.push(first);
    dark.addEventListener("change", again);
  };
  window.addEventListener("load", () => Promise.all(waiting).then(() => document.documentElement.setAttribute("data-ready", "true")));

  // A number that is known up to how far apart its bounds are, as a text; one number where both read alike.
  const between = (middle, apart, text) => {
    const [low, high] = [text(middle - apart / 2), text(middle + apart / 2)];
    return low === high ? low : `${low}–${high}`;
  };

  return { between, byId, clear, data, draw, draws, filled, narrow };
})();
