// A QR code as an SVG picture, black on white with its quiet zone.
import { h, svg } from "../dom.js";
import { qr } from "../vendor/qr.js";
import { t } from "../i18n.js";

export function qrPicture(text) {
  const rows = qr(text);
  if (!rows) return h("p.hint", null, t("Too long for a QR code."));
  const size = rows.length + 8;
  let path = "";
  rows.forEach((row, y) => row.forEach((dark, x) => { if (dark) path += `M${x + 4} ${y + 4}h1v1h-1z`; }));
  return svg("svg", { viewBox: `0 0 ${size} ${size}`, class: "qr-picture", role: "img", "aria-label": t("QR code"), "shape-rendering": "crispEdges" },
    svg("rect", { width: size, height: size, fill: "#fff" }), svg("path", { d: path, fill: "#000" }));
}
