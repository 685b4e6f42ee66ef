"use strict";
// The charts of a trend, one below the other.
(() => {
  const { charts } = JSON.parse(drawing.byId("data").textContent);
  const drawAll = () => Promise.all(charts.map((chart, index) => drawing.draw(`chart-${index}`, structuredClone(chart))));
  drawing.dark.addEventListener("change", drawAll);
  drawAll().then(() => document.documentElement.setAttribute("data-ready", "true"));
})();
