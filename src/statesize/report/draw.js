"use strict";
// Drawing of Vega-Lite charts in the page's colours, without evaluated code.
const drawing = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const views = {};
  const byId = (id) => document.getElementById(id);
  const narrow = () => window.innerWidth < 520;

  // Colours are the style sheet's variables, so that charts follow it into the dark and onto paper.
  const config = (id) => ({
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    title: { color: "var(--ink)" },
    axis: { labelColor: "var(--soft)", titleColor: "var(--soft)", titleFontWeight: 500, titleFontSize: 12, labelFontSize: 11,
      titlePadding: 8, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)" },
    axisX: { grid: false },
    legend: { columns: narrow() ? (id === "layers" ? 1 : 2) : 4, labelColor: "var(--ink)", titleColor: "var(--soft)", labelFontSize: 12, labelLimit: 300, symbolSize: 110,
      symbolBaseFillColor: "var(--soft)", symbolBaseStrokeColor: "var(--soft)" },
  });

  const clear = (id) => {
    views[id]?.result?.finalize();
    views[id] = { turn: (views[id]?.turn ?? 0) + 1 };
    byId(id).replaceChildren();
  };

  const draw = async (id, spec, datasets = {}) => {
    const turn = (views[id]?.turn ?? 0) + 1;
    views[id]?.result?.finalize();
    views[id] = { turn };
    const result = await vegaEmbed(byId(id), { ...spec, datasets: { ...spec.datasets, ...datasets } }, {
      ast: true, actions: false, renderer: "svg", config: config(id), tooltip: { theme: dark.matches ? "dark" : "light", anchor: "mark", position: ["top", "bottom", "right", "left"], offsetX: 0, offsetY: 6 },
    });
    if (views[id].turn !== turn) {
      result.finalize();
      return null;
    }
    views[id].result = result;
    return result.view;
  };

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });

  // A number that is known up to how far apart its bounds are, as a text; one number where both read alike.
  const between = (middle, apart, text) => {
    const [low, high] = [text(middle - apart / 2), text(middle + apart / 2)];
    return low === high ? low : `${low}–${high}`;
  };

  return { between, byId, clear, dark, draw, narrow };
})();
