// How to make this computer or phone trust the server's own certificate: needed for the installed app, for sensors, for the
// camera and for system notifications. The steps are per system.

import { h, icon, replace } from "../dom.js";
import { session } from "../session.js";
import { t } from "../i18n.js";

const SYSTEMS = () => [
  ["Android", [t("Download the certificate below."), t("Settings → Security → Encryption and credentials → Install a certificate → CA certificate."), t("Choose the downloaded file, then open the https address.")]],
  ["iPhone, iPad", [t("Download the certificate below and allow the profile."), t("Settings → General → VPN and device management → install the profile."), t("Settings → General → About → Certificate trust settings → switch it on.")]],
  ["Windows", [t("Download the certificate below and open it."), t("Install certificate → Local machine → Place in: Trusted root certification authorities."), t("Restart the browser, then open the https address.")]],
  ["macOS", [t("Download the certificate below and open it in Keychain Access."), t("Double-click it → Trust → Always trust."), t("Restart the browser, then open the https address.")]],
  ["Linux", [t("Download the certificate below."), t("Chromium: Settings → Privacy and security → Security → Manage certificates → Authorities → Import."), t("Firefox: Settings → Privacy and security → Certificates → View certificates → Authorities → Import.")]],
];

function mine() {
  const agent = navigator.userAgent;
  if (/android/i.test(agent)) return "Android";
  if (/iphone|ipad/i.test(agent)) return "iPhone, iPad";
  if (/windows/i.test(agent)) return "Windows";
  return /macintosh/i.test(agent) ? "macOS" : "Linux";
}

export async function showCertificate(screen) {
  screen.head(t("Trust this server"), session.login ? "" : "login");
  const link = h("p");
  const own = mine();
  screen.show(h(".card", null, icon("lock"), h("p", null, t("On the plain http address everything works but what browsers keep for https: installing this page as an app, system notifications, the sensors and the camera. The server has a certificate of its own; once this device trusts it, use the https address.")), link),
    h(".card", null, h("h2", null, t("Steps")), SYSTEMS().sort((a, b) => (b[0] === own) - (a[0] === own)).map(([name, steps]) => h("details", { open: name === own }, h("summary", null, name), h("ol", null, steps.map((step) => h("li", null, step)))))));
  const [certificate, health] = await Promise.all([fetch("blynk.crt", { method: "HEAD" }).catch(() => null), fetch("health").then((answer) => answer.json()).catch(() => ({}))]);
  const port = location.protocol === "https:" ? location.port : health.https_port || 9443;
  const secure = `https://${location.hostname}${port && Number(port) !== 443 ? `:${port}` : ""}/`;
  replace(link, certificate?.ok ? h("a.button.primary", { href: "blynk.crt", download: "blynk.crt" }, icon("download"), t("Download the certificate")) : h("span.hint", null, t("This server has no certificate of its own to download.")), " ",
    h("a", { href: secure }, secure));
}
