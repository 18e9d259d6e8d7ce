// Sharing a project: switch, link and QR for guests, a new link that ends the old one.

import { mainMenu } from "../app.js";
import { button, confirm, copy, h, icon, replace, toast } from "../dom.js";
import { t } from "../i18n.js";
import { session, share, shareToken } from "../session.js";
import { qrPicture } from "./qrpicture.js";

export const guestLink = (email, token) => `${location.origin}${location.pathname}#/guest/${encodeURIComponent(email)}/${encodeURIComponent(token)}`;

export function showShare(screen) {
  const project = screen.project();
  if (!project) return;
  screen.head(t("Share"), `project/${project.id}`, mainMenu());
  const box = h("div");
  const draw = () => {
    const { isShared, sharedToken } = project.document;
    if (!isShared || !sharedToken) {
      return replace(box, h(".card", null, h("h2", null, t("Show it to others")), h("p", null, t("Whoever has the link sees this project and can use its widgets, without an account and without your tokens. You can end it at any time.")),
        !sharedToken && h("p.hint", null, t("The first link costs 1,000 energy.")),
        button(t("Share this project"), async () => { await shareToken(project); await share(project, true); draw(); }, { class: "primary" })));
    }
    const link = guestLink(session.email, sharedToken);
    replace(box, h(".card.share", null, h("h2", null, t("This project is shared")), qrPicture(link), h("code.token.link", { "data-link": "" }, link),
      h(".row.center", null, button([icon("copy"), t("Copy the link")], () => copy(link), { class: "primary" }), navigator.share && button([icon("share"), t("Send")], () => navigator.share({ url: link, title: project.name }).catch(() => {}))),
      h(".row.center", null, button(t("Stop sharing"), async () => { await share(project, false); draw(); }),
        button(t("New link"), async () => {
          if (!await confirm(t("New link?"), t("Everybody who has the old link is thrown out."), t("New link"))) return;
          await shareToken(project, true);
          toast(t("The old link does not work any more."));
          draw();
        }, { class: "danger" }))));
  };
  draw();
  screen.listen(project, "sharing", draw);
  screen.show(box);
}
